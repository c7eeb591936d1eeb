/** Compile-time tests of the types. */

import {
  connect,
  isKnownEvent,
  type Client,
  type GatewayRecovery,
  type GatewayStatusChange,
  type Level,
  type Off,
  type OtherEvent,
  type Received,
  type RelayMessage,
  type State,
  type SystemHealth,
  type SystemLog,
  type TickertapeEvent,
} from "../src/index.js";
import { useGateways, useLogs } from "../src/react.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Compiles only if both types are identical. */
function same<A, B>(_: Same<A, B>): void {}

interface OrderFilled {
  event_type: "order_filled";
  timestamp: string;
  price: number;
}

declare module "../src/types.js" {
  interface EventTypes {
    order_filled: OrderFilled;
  }
}

export function narrows(event: TickertapeEvent): string {
  switch (event.event_type) {
    case "gateway_status_change":
      same<typeof event, GatewayStatusChange>(true);
      return event.current_status;
    case "gateway_recovery":
      same<typeof event, GatewayRecovery>(true);
      return event.phase;
    case "system_log":
      same<typeof event, SystemLog>(true);
      same<typeof event.level, Level>(true);
      return event.message;
    case "system_health":
      same<typeof event, SystemHealth>(true);
      return event.component;
    case "order_filled":
      same<typeof event, OrderFilled>(true);
      return event.price.toFixed(2);
    default: {
      same<typeof event, OtherEvent>(true);
      same<(typeof event)["timestamp"], string>(true);
      same<(typeof event)["what others add"], unknown>(true);
      const name: string = event.event_type;
      return name;
    }
  }
}

export function guards(event: TickertapeEvent): void {
  if (isKnownEvent(event)) {
    same<typeof event, GatewayStatusChange | GatewayRecovery | SystemLog | SystemHealth>(true);
  }
}

export function routes(message: RelayMessage): unknown {
  switch (message.type) {
    case "welcome":
      return message.limits.max_subjects;
    case "events":
      return message.events[0]?.event;
    case "gap":
      return message.dropped;
    default:
      // @ts-expect-error: not all of the other messages have a cursor
      return message.cursor;
  }
}

export function states(state: State): number | null {
  // @ts-expect-error: only in phase reconnecting
  void state.retryAt;
  return state.phase === "reconnecting" ? state.retryAt : 0;
}

export function connects(): Client {
  // @ts-expect-error: no such mode
  connect("/ws", { mode: "fast" });
  // @ts-expect-error: no such level
  connect("/ws", { level: "LOUD" });
  const client = connect(new URL("wss://relay.example/ws"), {
    subjects: ["log.>"],
    level: "WARN",
    mode: "latest",
    interval_ms: 500,
    since: "10m",
    token: () => Promise.resolve(""),
    cursorStore: { load: () => null, save: (cursor) => localStorage.setItem("x", cursor) },
    WebSocket,
  });
  same<Parameters<Parameters<Client["on"]>[1]>, [event: Received]>(true);
  const off: Off = client.on(
    "log.>",
    ({ subject, seq, event, snapshot }) => void [subject, seq, event, snapshot],
  );
  off();
  return client;
}

export function hooks(): string {
  const [gateway] = useGateways();
  for (const row of useLogs({ limit: 10 }))
    if (row.kind === "gap") same<typeof row.gap.dropped, number | null>(true);
  return gateway?.event.current_status ?? "";
}
