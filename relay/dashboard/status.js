/**
 * Statuses of the contract: their order of severity, and how they are shown.
 *
 * Invariants: every status has a shape and a label besides its colour, and all shapes differ.
 * The shapes are drawn by gateways.css for [data-status].
 */

import { element, setAttribute, setText } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";

/** Statuses, worst first. Off session is an expected state, hence last. */
export const STATUSES = ["UNHEALTHY", "RECOVERING", "DEGRADED", "UNKNOWN", "HEALTHY", "OFF_SESSION"];

/** The gateway is no longer monitored: it is removed from the page. */
export const REMOVED = "REMOVED";

const RANK = new Map(STATUSES.map((name, index) => [name, index]));

/**
 * Read a status; an unknown one becomes UNKNOWN.
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
 * Return the label of a status.
 * @param {string} status
 * @returns {string}
 */
export function statusLabel(status) {
  return STRINGS.status[status] ?? status;
}

/**
 * Return the label of a reason code, or any other reason unchanged.
 * @param {string} reason
 * @returns {string}
 */
export function reasonLabel(reason) {
  return Object.hasOwn(STRINGS.reasons, reason) ? STRINGS.reasons[reason] : reason;
}

/**
 * Create the mark of a status: its shape and label, in its colour.
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
      setText(text, statusLabel(status));
    },
  };
}
