/**
 * How many events came in each of the last 60 seconds, of which level, and when the last one was.
 *
 * Invariants: sixty counters of each kind, however fast events come; the second that is still running is not shown, since it
 * would always look like a dip.
 */

/** Seconds that are kept and drawn. */
export const SECONDS = 60;

/** What is counted apart: the levels, and what has none. */
export const KINDS = ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL", ""];

export class Rate {
  #counts = new Map(KINDS.map((kind) => [kind, new Array(SECONDS + 1).fill(0)]));
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
   * Events in each of the last 60 whole seconds, oldest first.
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

  #index(second) {
    return second % (SECONDS + 1);
  }

  #advance(now) {
    const second = Math.floor(now / 1000);
    if (second <= this.#second) return;
    const first = Math.max(this.#second + 1, second - SECONDS);
    for (const counts of this.#counts.values()) {
      for (let s = first; s <= second; s += 1) counts[this.#index(s)] = 0;
    }
    this.#second = second;
  }
}

/**
 * The counters as the path of an area, `width` = one unit per second, `height` units high.
 * @param {number[]} seconds
 * @param {number} height
 * @param {number} most what is as high as that
 * @returns {string} the `d` of an SVG path
 */
export function sparkline(seconds, height, most) {
  const bars = seconds.map((value, x) => {
    if (value === 0) return "";
    // A second with anything in it shows at least one unit: a single event among thousands is still an event.
    const tall = Math.max(1, (value / Math.max(1, most)) * height);
    return `M${x} ${height}V${(height - tall).toFixed(1)}h.8V${height}Z`;
  });
  return bars.join("");
}
