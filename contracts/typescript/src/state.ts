/** Connection state of a client. */

import type { Timestamp } from "./types.js";

/**
 * Connection state of a client, and its reason.
 *
 * - `connecting`: the first connection is being established.
 * - `catching-up`: connected; events since the cursor, or since `since`, are being delivered.
 * - `live`: connected; events are delivered as they happen.
 * - `reconnecting`: the connection was lost or could not be established. `retryAt` is the time of the next
 *   attempt by this machine's `Date.now()`; null while an attempt is in progress or the device is offline.
 * - `closed`: no more events are delivered until `reconnect()` is called.
 */
export type State =
  | { readonly phase: "connecting" | "catching-up" | "live" | "closed"; readonly reason: string }
  | { readonly phase: "reconnecting"; readonly reason: string; readonly retryAt: number | null };

/** Transport of a connection: a WebSocket, or an HTTP stream where no WebSocket can be established. */
export type Transport = "websocket" | "stream";

/** State of the relay's connection to NATS, as last reported; `since` is null if the relay did not report it. */
export interface Upstream {
  readonly connected: boolean;
  readonly since: Timestamp | null;
}

/** Interval at which the progress of a session that catches up is checked, in milliseconds. */
export const POLL_MS = 250;

/**
 * Detector for the moment when a session that started in the past reaches the present.
 *
 * The relay does not report that moment, so it is inferred from the timestamps of the events: in the past they
 * advance much faster than real time, in the present just as fast. Only differences are compared, never clocks.
 */
export class CatchUp {
  #newest = -Infinity;
  #previous = -Infinity;

  /** Record the timestamps of received events; `now` is a monotonic time in milliseconds. */
  observe(timestamps: readonly Timestamp[], now: number): void {
    for (const timestamp of timestamps) {
      const ahead = Date.parse(timestamp) - now;
      if (ahead > this.#newest) this.#newest = ahead;
    }
  }

  /** Return whether the events have advanced little or not at all since the last call; called every `POLL_MS`. */
  caughtUp(): boolean {
    const advance = this.#newest - this.#previous;
    this.#previous = this.#newest;
    return !(advance > POLL_MS);
  }
}
