/**
 * How many events came in each of the last 300 seconds, of which level, in which of them nothing could come, and when
 * the last one was.
 *
 * Invariants: 300 counters of each kind, however fast events come; the second that is still running is not shown, since
 * it would always look like a dip.
 */

/** Seconds that are kept and drawn. */
export const SECONDS = 300;

/** What is counted apart: the levels, and what has none. */
export const KINDS = ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL", ""];

export class Rate {
  #counts = new Map(KINDS.map((kind) => [kind, new Array(SECONDS + 1).fill(0)]));
  #deaf = new Array(SECONDS + 1).fill(false);
  #second = 0;

  /** UNIX milliseconds of the newest event, 0 before the first. */
  last = 0;

  /**
   * Count an event.
   * @param {unknown} kind one of KINDS; any other counts as without a level
   * @param {number} at when they count, UNIX milliseconds: their own time while history is read
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
   * Events in each of the last 300 whole seconds, oldest first.
   * @param {number} now UNIX milliseconds
   * @param {string[]} kinds of which kinds
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
   * Nothing could come in: that none came says nothing.
   * @param {number} since UNIX milliseconds
   * @param {number} now UNIX milliseconds
   */
  deafen(since, now) {
    this.#advance(now);
    // From the start each time: a page that is not looked at has few ticks.
    const first = Math.max(Math.floor(since / 1000), this.#second - SECONDS);
    for (let s = first; s <= this.#second; s += 1) this.#deaf[this.#index(s)] = true;
  }

  /**
   * In which of the last 300 whole seconds nothing could come in, oldest first.
   * @param {number} now UNIX milliseconds
   * @returns {boolean[]}
   */
  deaf(now) {
    this.#advance(now);
    return Array.from({ length: SECONDS }, (_, i) => this.#deaf[this.#index(this.#second - SECONDS + i)]);
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
      this.#deaf[this.#index(s)] = false;
    }
    this.#second = second;
  }
}
