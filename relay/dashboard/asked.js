/** What was asked for where in the stream, and what is missing once more is wanted. */

import { covers, same } from "/assets/filters.js";
import { readCursor } from "/assets/cursor.js";

/** @typedef {import("/assets/filters.js").Ask} Ask */

export class Asked {
  /** @type {{from: string, ask: Ask}[]} */ #stretches = [];

  /**
   * From a place on, a filter holds.
   * @param {string} cursor
   * @param {Ask} ask
   * @returns {Record<string, any>|null} a gap, when before it less was asked for
   */
  from(cursor, ask) {
    const { epoch, seq } = readCursor(cursor);
    const last = this.#stretches.at(-1);
    if (!last || readCursor(last.from).epoch !== epoch) {
      this.#stretches = [{ from: cursor, ask }];
      return null;
    }
    if (same(last.ask, ask)) return null;
    let missing = "";
    while (this.#stretches.length > 0 && !covers(this.#stretches.at(-1).ask, ask)) missing = this.#stretches.pop().from;
    this.#stretches.push({ from: missing || cursor, ask });
    return missing && readCursor(missing).seq < seq ? { from: missing, to: cursor, reason: "filter", ask } : null;
  }
}
