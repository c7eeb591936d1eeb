/** Public interface of a client, and `connect`, which creates one. */

import type { CursorStore } from "./cursors.js";
import { Feed } from "./feed.js";
import type { WebSocketConstructor } from "./link.js";
import type { Off } from "./signal.js";
import type { State, Transport, Upstream } from "./state.js";
import type { TokenSource } from "./tokens.js";
import type { Cursor, GapMessage, Item, Level, Mode, RelayMessage } from "./types.js";

/** Events that a client subscribes to. */
export interface Filter {
  /** Subject patterns, at most 64; when omitted, the union of the handlers' patterns. */
  readonly subjects?: readonly string[] | undefined;
  /** Minimum level of log events; all levels when omitted. */
  readonly level?: Level | undefined;
  /**
   * Condition on log events in CEL, such as `event.metadata.account == 7`; none when omitted. States are not subject
   * to it. At most 2 500 characters when encoded in a URL.
   */
  readonly where?: string | undefined;
  /** Delivery mode; `live` when omitted. */
  readonly mode?: Mode | undefined;
  /** In mode `latest`: minimum interval between two events of one subject, in milliseconds. */
  readonly interval_ms?: number | undefined;
}

/** Options of `connect`. */
export interface Options extends Filter {
  /** Where to start without a cursor: `earliest`, a duration such as `10m`, or a time; now when omitted. */
  readonly since?: string | undefined;
  /** Returns a token (a JWT): called to connect, before the token expires, and after a rejection; null for none. */
  readonly token?: TokenSource | undefined;
  /** Persists the cursor; it is kept in memory when omitted. */
  readonly cursorStore?: CursorStore | undefined;
  /** WebSocket implementation for runtimes without one, such as `ws` in Node 20. */
  readonly WebSocket?: WebSocketConstructor | undefined;
}

/** Event as passed to a handler. */
export interface Received extends Item {
  /** Set for the current state of a subject, which may be repeated; unset for a new event, delivered once. */
  readonly snapshot: boolean;
}

/** Connection to a relay that reconnects and resumes automatically. */
export interface Client {
  /** Connection state. */
  readonly state: State;
  /** Transport of the current connection or attempt, and of the last one while there is none. */
  readonly transport: Transport;
  /** State of the relay's connection to NATS. */
  readonly upstream: Upstream;
  /** Number of states that the last snapshot lacked, because the relay cannot hold all; 0 if it was complete. */
  readonly truncated: number;
  /** Cursor of the last position reached; null before the first. */
  readonly cursor: Cursor | null;
  /**
   * Call a handler for each event that a pattern selects, starting with the current state of its subjects.
   *
   * @throws TypeError if `pattern` is not a valid pattern
   */
  on(pattern: string, handler: (event: Received) => void): Off;
  /** Call a handler for each gap: events that are not delivered. */
  onGap(handler: (gap: GapMessage) => void): Off;
  /** Call a handler when the relay loses or regains its connection to NATS. */
  onUpstream(handler: (upstream: Upstream) => void): Off;
  /** Call a handler on each state change; `state` holds the current state. */
  onState(handler: (state: State) => void): Off;
  /** Call a handler for each relay message, after its events; for messages without a handler of their own. */
  onMessage(handler: (message: RelayMessage) => void): Off;
  /** Call a handler with each renewed token that the relay accepts, before `onMessage` gets the message. */
  onRenewal(handler: (token: string) => void): Off;
  /**
   * Replace the filter from the current position on; omitted fields take their defaults.
   *
   * @throws TypeError if `where` is too long
   */
  setFilter(filter: Filter): void;
  /** Call `token` now, and switch the session to the token that it returns. */
  renew(): void;
  /** Connect immediately: skip the backoff, or reopen a closed client. */
  reconnect(): void;
  /** Close the client: no handler is called any more, and no timer, listener or socket remains. */
  close(): void;
}

/**
 * Connect to a relay.
 *
 * The socket is opened when the first handler is added, or immediately if `subjects` are given. All handlers
 * added in the same turn of the event loop are part of the first subscription.
 *
 * @param url of the relay's feed, such as `wss://relay.example/ws`; `http(s)` and, in a page, a path are accepted
 * @throws TypeError if `where` is too long
 */
export function connect(url: string | URL, options: Options = {}): Client {
  return new Feed(url, options);
}
