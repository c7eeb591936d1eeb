/**
 * Events per second of the last 300 seconds by level, the seconds without a connection, and the time of the last event.
 *
 * Invariants: memory is constant: 300 counters per level; the current second is not shown, because an incomplete second
 * would look like a dip.
 */

/** Number of seconds kept. */
export const SECONDS = 300;

/** Levels counted separately; the last is for events without a level. */
export const KINDS = ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL", ""];

export class Rate {
  #counts = new Map(KINDS.map((kind) => [kind, new Array(SECONDS + 1).fill(0)]));
  #disconnected = new Array(SECONDS + 1).fill(false);
  #second = 0;

  /** Time of the latest event, UNIX milliseconds; 0 before the first. */
  last = 0;

  /**
   * Count an event.
   * @param {unknown} kind one of KINDS; anything else counts as without a level
   * @param {number} at time to count it at, UNIX milliseconds: during a replay the event's own time
   * @param {number} now UNIX milliseconds
   */
  add(kind, at, now) {
    this.#advance(now);
    const when = Math.min(at, now);
    this.last = Math.max(this.last, when);
    const age = this.#second - Math.floor(when / 1000);
    const counts = this.#counts.get(kind) ?? this.#counts.get("");
    if (age <= SECONDS) counts[this.#index(this.#second - age)] += 1;
  }

  /**
   * Return the events in each of the last 300 full seconds, oldest first.
   * @param {number} now UNIX milliseconds
   * @param {string[]} kinds levels to add up
   * @returns {number[]}
   */
  seconds(now, kinds = KINDS) {
    this.#advance(now);
    const all = kinds.map((kind) => this.#counts.get(kind));
    return Array.from({ length: SECONDS }, (_, i) => {
      const index = this.#index(this.#second - SECONDS + i);
      return all.reduce((sum, counts) => sum + counts[index], 0);
    });
  }

  /**
   * Mark seconds without a connection, in which no events could arrive.
   * @param {number} since UNIX milliseconds
   * @param {number} now UNIX milliseconds
   */
  markDisconnected(since, now) {
    this.#advance(now);
    // From the start each time, because a page in the background ticks rarely.
    const first = Math.max(Math.floor(since / 1000), this.#second - SECONDS);
    for (let s = first; s <= this.#second; s += 1) this.#disconnected[this.#index(s)] = true;
  }

  /**
   * Return which of the last 300 full seconds had no connection, oldest first.
   * @param {number} now UNIX milliseconds
   * @returns {boolean[]}
   */
  disconnected(now) {
    this.#advance(now);
    return Array.from({ length: SECONDS }, (_, i) => this.#disconnected[this.#index(this.#second - SECONDS + i)]);
  }

  #index(second) {
    return second % (SECONDS + 1);
  }

  #advance(now) {
    const second = Math.floor(now / 1000);
    if (second <= this.#second) return;
    const first = Math.max(this.#second + 1, second - SECONDS);
    for (let s = first; s <= second; s += 1) {
      for (const counts of this.#counts.values()) counts[this.#index(s)] = 0;
      this.#disconnected[this.#index(s)] = false;
    }
    this.#second = second;
  }
}
