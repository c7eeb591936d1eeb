/**
 * The statuses of the contract: which is worse, and how each is shown.
 *
 * Invariants: every status has a shape and a word beside its colour, and its shape differs from all others.
 * The shapes are drawn by style.css for [data-status].
 */

import { element, setAttribute, setText } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";

/** Statuses, worst first. Out of session is expected, hence last. */
export const STATUSES = ["UNHEALTHY", "RECOVERING", "DEGRADED", "UNKNOWN", "HEALTHY", "OFF_SESSION"];

/** No longer watched: leaves the page. */
export const REMOVED = "REMOVED";

const RANK = new Map(STATUSES.map((name, index) => [name, index]));

/**
 * A status as it came, or UNKNOWN for a word that the contract does not have.
 * @param {unknown} value
 * @returns {string}
 */
export function readStatus(value) {
  return value === REMOVED || RANK.has(value) ? String(value) : "UNKNOWN";
}

/**
 * Place in the order from worst to best; smaller is worse.
 * @param {string} status
 * @returns {number}
 */
export function rank(status) {
  return RANK.get(status) ?? STATUSES.length;
}

/**
 * The word to show.
 * @param {string} status
 * @returns {string}
 */
export function word(status) {
  return STRINGS.status[status] ?? status;
}

/**
 * Shape and word, coloured.
 * @returns {{root: HTMLElement, set: (status: string) => void}}
 */
export function statusMark() {
  const shape = element("span", "shape");
  shape.setAttribute("aria-hidden", "true");
  const text = element("span", "status-word");
  const root = element("span", "status", shape, text);
  return {
    root,
    set(status) {
      setAttribute(root, "data-status", status);
      setText(text, word(status));
    },
  };
}
