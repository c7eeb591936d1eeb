/** Which subscription was in effect from which position on, to find what a wider filter has to load. */

import { covers, sameSubscription } from "/assets/filters.js";
import { readCursor } from "/assets/cursor.js";

/** @typedef {import("/assets/filters.js").Subscription} Subscription */

/** Record of the subscriptions by position. */
export class FilterCoverage {
  /** @type {{from: string, subscription: Subscription}[]} */ #segments = [];

  /**
   * Record that a subscription is in effect from a position on.
   * @param {string} cursor
   * @param {Subscription} subscription
   * @returns {Record<string, any>|null} a gap, if an earlier subscription was narrower
   */
  extend(cursor, subscription) {
    const { epoch, seq } = readCursor(cursor);
    const last = this.#segments.at(-1);
    if (!last || readCursor(last.from).epoch !== epoch) {
      this.#segments = [{ from: cursor, subscription }];
      return null;
    }
    if (sameSubscription(last.subscription, subscription)) return null;
    let missing = "";
    while (this.#segments.length > 0 && !covers(this.#segments.at(-1).subscription, subscription)) missing = this.#segments.pop().from;
    this.#segments.push({ from: missing || cursor, subscription });
    return missing && readCursor(missing).seq < seq ? { from: missing, to: cursor, reason: "filter", subscription } : null;
  }
}
