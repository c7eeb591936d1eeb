/** How a client stands with its relay. */

import type { Timestamp } from "./types.js";

/**
 * How a client stands with its relay, and why.
 *
 * - `connecting`: the first connection is being made.
 * - `catching-up`: connected, and what happened since the cursor, or since `since`, is coming.
 * - `live`: connected, and what happens is coming as it happens.
 * - `reconnecting`: the connection was lost, or never came about. `retryAt` is when the next attempt starts,
 *   in this machine's `Date.now()`; null while one is under way, and while this device is offline.
 * - `closed`: nothing more will come, until `reconnect()`.
 */
export type State =
  | { readonly phase: "connecting" | "catching-up" | "live" | "closed"; readonly reason: string }
  | { readonly phase: "reconnecting"; readonly reason: string; readonly retryAt: number | null };

/** Whether the relay hears from NATS, as far as it said; `since` is null where it did not say since when. */
export interface Upstream {
  readonly connected: boolean;
  readonly since: Timestamp | null;
}

/** Milliseconds between two looks at how far a session has caught up. */
export const LOOK_MS = 250;

/**
 * Tells when a session that began in the past has reached the present.
 *
 * The relay does not say, so this looks at how fast the events' own times pass: in the past much faster than
 * time does, in the present as fast. Clocks are never compared, only how they move.
 */
export class CatchUp {
  #newest = -Infinity;
  #before = -Infinity;

  /** Events came. `now` is of a clock that never jumps. */
  saw(timestamps: readonly Timestamp[], now: number): void {
    for (const timestamp of timestamps) {
      const ahead = Date.parse(timestamp) - now;
      if (ahead > this.#newest) this.#newest = ahead;
    }
  }

  /** True when little or nothing passed since the last call; called every `LOOK_MS`. */
  reached(): boolean {
    const passed = this.#newest - this.#before;
    this.#before = this.#newest;
    return !(passed > LOOK_MS);
  }
}
