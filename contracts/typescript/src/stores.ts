/**
 * Stores behind the React hooks: immutable values that change at most once per frame.
 *
 * Invariants: a store follows the feed only while it has subscribers; its size is bounded by its limit or by
 * the number of gateways.
 */

import type { Client, Received } from "./client.js";
import { atNextFrame } from "./frames.js";
import type { Off } from "./signal.js";
import type { State, Upstream } from "./state.js";
import type { GapMessage, GatewayStatusChange, SystemLog } from "./types.js";

/** Source of a shared client, which is open while it is in use. */
export interface ClientSource {
  acquire(): [client: Client, release: Off];
}

/** Store for `useSyncExternalStore`. */
export abstract class Store<T> {
  readonly #source: ClientSource;
  readonly #subscribers = new Set<() => void>();
  #value: T;
  #stop: Off = () => {};

  constructor(source: ClientSource, initial: T) {
    this.#source = source;
    this.#value = initial;
  }

  /** Set while the store has no subscribers. */
  get idle(): boolean {
    return this.#subscribers.size === 0;
  }

  readonly getSnapshot = (): T => this.#value;

  readonly subscribe = (changed: () => void): Off => {
    const subscriber = (): void => changed();
    this.#subscribers.add(subscriber);
    if (this.#subscribers.size === 1) {
      const [client, release] = this.#source.acquire();
      const offs = this.attach(client);
      this.#stop = () => [...offs, release].forEach((off) => off());
      this.changed();
    }
    return () => {
      if (this.#subscribers.delete(subscriber) && this.#subscribers.size === 0) this.#stop();
    };
  };

  /** Reset the store and add its handlers to a client; return the functions that remove them. */
  protected abstract attach(client: Client): Off[];

  /** Compute the current value. */
  protected abstract compute(): T;

  protected changed(): void {
    atNextFrame(this.#publish);
  }

  readonly #publish = (): void => {
    if (this.#subscribers.size === 0) return;
    this.#value = this.compute();
    for (const subscriber of [...this.#subscribers]) subscriber();
  };
}

/** Connection state, and the client; null before the first use and on a server. */
export interface Connection {
  readonly state: State;
  readonly upstream: Upstream;
  /** Number of states that the last snapshot lacked, because the relay cannot hold all; 0 if it was complete. */
  readonly truncated: number;
  readonly client: Client | null;
}

export const NO_CONNECTION: Connection = {
  state: { phase: "connecting", reason: "" },
  upstream: { connected: true, since: null },
  truncated: 0,
  client: null,
};

export class ConnectionStore extends Store<Connection> {
  #client: Client | null = null;

  constructor(source: ClientSource) {
    super(source, NO_CONNECTION);
  }

  protected override attach(client: Client): Off[] {
    this.#client = client;
    return [
      client.onState(() => this.changed()),
      client.onUpstream(() => this.changed()),
      client.onMessage((message) => {
        if (message.type === "snapshot" && message.done) this.changed();
      }),
    ];
  }

  protected override compute(): Connection {
    const client = this.#client;
    if (!client) return NO_CONNECTION;
    const { state, upstream, truncated } = client;
    return { client, state, upstream, truncated };
  }
}

/** Latest status of a gateway, and its position in the stream. */
export interface Gateway {
  readonly subject: string;
  readonly seq: number;
  readonly event: GatewayStatusChange;
}

/** Maximum number of gateways; a relay holds no more. Those that have not changed for the longest time are dropped. */
const MAX_GATEWAYS = 100_000;

export const NO_GATEWAYS: readonly Gateway[] = [];

export class GatewaysStore extends Store<readonly Gateway[]> {
  readonly #gateways = new Map<string, Gateway>();
  #order: string[] | null = null;

  constructor(source: ClientSource) {
    super(source, NO_GATEWAYS);
  }

  protected override attach(client: Client): Off[] {
    this.#clear();
    return [
      client.on("gateway.status.>", (received) => this.#take(received)),
      client.onGap(({ reason }) => {
        // The stream was recreated: a snapshot follows, and gateways that are not in it no longer exist.
        if (reason === "reset") this.#clear();
      }),
    ];
  }

  protected override compute(): readonly Gateway[] {
    this.#order ??= [...this.#gateways.keys()].sort();
    return this.#order.flatMap((subject) => this.#gateways.get(subject) ?? []);
  }

  #take({ subject, seq, event }: Received): void {
    if (event.event_type !== "gateway_status_change") return;
    const known = this.#gateways.get(subject);
    // A snapshot can be older than the events received since it was taken.
    if (known && known.seq >= seq) return;
    if (!known) this.#order = null;
    if (event.current_status === "REMOVED") {
      this.#gateways.delete(subject);
      this.#order = null;
    } else {
      this.#gateways.delete(subject); // moves it to the end: a map keeps the order of insertion
      this.#gateways.set(subject, { subject, seq, event });
      if (this.#gateways.size > MAX_GATEWAYS) {
        this.#gateways.delete(this.#gateways.keys().next().value ?? "");
        this.#order = null;
      }
    }
    this.changed();
  }

  #clear(): void {
    this.#gateways.clear();
    this.#order = null;
    this.changed();
  }
}

/** Row of a log: a line or a gap. `key` is unique among the rows. */
export type LogRow =
  | {
      readonly kind: "line";
      readonly key: string;
      readonly subject: string;
      readonly seq: number;
      readonly event: SystemLog;
    }
  | { readonly kind: "gap"; readonly key: string; readonly gap: GapMessage };

export const NO_ROWS: readonly LogRow[] = [];

export class LogsStore extends Store<readonly LogRow[]> {
  readonly #limit: number;
  readonly #pattern: string;
  #rows: LogRow[] = [];
  #count = 0;

  constructor(source: ClientSource, pattern: string, limit: number) {
    super(source, NO_ROWS);
    this.#pattern = pattern;
    this.#limit = limit;
  }

  protected override attach(client: Client): Off[] {
    this.#rows = [];
    return [
      client.on(this.#pattern, ({ subject, seq, event, snapshot }) => {
        if (event.event_type === "system_log" && !snapshot) {
          this.#add({ kind: "line", key: this.#key(), subject, seq, event });
        }
      }),
      client.onGap((gap) => {
        const lines = Object.keys(gap.by).some((subject) => subject.startsWith("log."));
        if (lines || gap.dropped === null) this.#add({ kind: "gap", key: this.#key(), gap });
      }),
    ];
  }

  protected override compute(): readonly LogRow[] {
    return this.#rows.slice(-this.#limit);
  }

  #key(): string {
    return String(++this.#count);
  }

  #add(row: LogRow): void {
    this.#rows.push(row);
    // Trim in bulk: trimming on each row would copy all rows each time.
    if (this.#rows.length >= 2 * this.#limit) this.#rows = this.#rows.slice(-this.#limit);
    this.changed();
  }
}
