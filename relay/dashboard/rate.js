/**
 * How many events came in each of the last 60 seconds, and when the last one was.
 *
 * Invariants: sixty counters, however fast events come; the second that is still running is not shown, since it
 * would always look like a dip.
 */

/** Seconds that are kept and drawn. */
export const SECONDS = 60;

export class Rate {
  #counts = new Array(SECONDS + 1).fill(0);
  #second = 0;

  /** UNIX milliseconds of the newest event, 0 before the first. */
  last = 0;

  /**
   * Count events.
   * @param {number} events
   * @param {number} at when they count, UNIX milliseconds: their own time while history is read
   * @param {number} now UNIX milliseconds
   */
  add(events, at, now) {
    this.#advance(now);
    const when = Math.min(at, now);
    this.last = Math.max(this.last, when);
    const age = this.#second - Math.floor(when / 1000);
    if (age <= SECONDS) this.#counts[this.#index(this.#second - age)] += events;
  }

  /**
   * Events in each of the last 60 whole seconds, oldest first.
   * @param {number} now UNIX milliseconds
   * @returns {number[]}
   */
  seconds(now) {
    this.#advance(now);
    return Array.from({ length: SECONDS }, (_, i) => this.#counts[this.#index(this.#second - SECONDS + i)]);
  }

  #index(second) {
    return second % (SECONDS + 1);
  }

  #advance(now) {
    const second = Math.floor(now / 1000);
    if (second <= this.#second) return;
    const first = Math.max(this.#second + 1, second - SECONDS);
    for (let s = first; s <= second; s += 1) this.#counts[this.#index(s)] = 0;
    this.#second = second;
  }
}

/**
 * The counters as the path of an area, `width` = one unit per second, `height` units high.
 * @param {number[]} seconds
 * @param {number} height
 * @returns {string} the `d` of an SVG path
 */
export function sparkline(seconds, height) {
  const most = Math.max(1, ...seconds);
  const bars = seconds.map((value, x) => {
    if (value === 0) return "";
    // A second with anything in it shows at least one unit: a single event among thousands is still an event.
    const tall = Math.max(1, (value / most) * height);
    return `M${x} ${height}V${(height - tall).toFixed(1)}h.8V${height}Z`;
  });
  return bars.join("");
}
