/** How a feed is asked for and used. */

import type { CursorStore } from "./cursors.js";
import { Feed } from "./feed.js";
import type { WebSocketMaker } from "./link.js";
import type { Off } from "./signal.js";
import type { State, Upstream } from "./state.js";
import type { TokenSource } from "./tokens.js";
import type { Cursor, GapMessage, Item, Level, Mode, RelayMessage } from "./types.js";

/** What a feed is asked for. */
export interface Filter {
  /** Patterns to follow, at most 64; without them, what the handlers want together. */
  readonly subjects?: readonly string[] | undefined;
  /** The least level of log lines; all of them when omitted. */
  readonly level?: Level | undefined;
  /** `live` when omitted. */
  readonly mode?: Mode | undefined;
  /** In mode `latest`: milliseconds between two events of one subject. */
  readonly interval_ms?: number | undefined;
}

/** What a feed is asked for, and with what. */
export interface Options extends Filter {
  /** Where to begin without a cursor: `earliest`, a duration such as `10m`, or a time; now when omitted. */
  readonly since?: string | undefined;
  /** Gives a token (a JWT) when one is needed: at first, before it ends, after a refusal; null: there is none. */
  readonly token?: TokenSource | undefined;
  /** Keeps the place; in memory when omitted. */
  readonly cursorStore?: CursorStore | undefined;
  /** The WebSocket to use where there is none, such as that of `ws` in Node 20. */
  readonly WebSocket?: WebSocketMaker | undefined;
}

/** An event as a handler gets it. */
export interface Received extends Item {
  /** It tells how things stand, and may have come before; otherwise it happened, and comes once. */
  readonly snapshot: boolean;
}

/** A feed. */
export interface Client {
  /** How it stands with the relay. */
  readonly state: State;
  /** Whether the relay hears from NATS. */
  readonly upstream: Upstream;
  /** The place reached; null before the first. */
  readonly cursor: Cursor | null;
  /**
   * Hand on the events that a pattern selects, and first the newest states among them.
   *
   * @throws TypeError it is no pattern
   */
  on(pattern: string, handler: (event: Received) => void): Off;
  /** Hear of events that will not come. */
  onGap(handler: (gap: GapMessage) => void): Off;
  /** Hear when the relay loses NATS, and when it is back. */
  onUpstream(handler: (upstream: Upstream) => void): Off;
  /** Hear of each new state; `state` has the present one. */
  onState(handler: (state: State) => void): Off;
  /** Hear each message of the relay, after its events were handed on; for what has no handler of its own. */
  onMessage(handler: (message: RelayMessage) => void): Off;
  /** Hear which next token the relay took, before the message that says so is handed on. */
  onRenewal(handler: (token: string) => void): Off;
  /** Follow something else from here on, at the same place; what is omitted takes its default. */
  setFilter(filter: Filter): void;
  /** Ask `token` for the next one now, and go on with it. */
  renew(): void;
  /** Connect now: without waiting, or again after it was closed. */
  reconnect(): void;
  /** End it: nothing more is handed on, and no timer, listener or socket is left. */
  close(): void;
}

/**
 * Follow a relay.
 *
 * The socket is opened once there is a handler, or at once with `subjects`; handlers that are added in the
 * same turn of the event loop are in its first filter.
 *
 * @param url of the relay's feed, such as `wss://relay.example/ws`; `http(s)`, and in a page a path, will do
 */
export function connect(url: string | URL, options: Options = {}): Client {
  return new Feed(url, options);
}
