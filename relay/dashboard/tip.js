/**
 * The one tip of the page, for whatever needs more words than it has room for.
 *
 * Invariants: a tip is text; it never leaves the window, and goes when what it stands at moves.
 */

import { element } from "/assets/dom.js";

const GAP = 6;

const tip = element("div", "tip");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
(document.querySelector("main") ?? document.body).append(tip);
document.addEventListener("scroll", hideTip, { capture: true, passive: true });
window.addEventListener("resize", hideTip);

/**
 * Show the tip above an element, or below it where there is no room.
 * @param {Element} anchor
 * @param {...(Node|string)} parts strings become lines
 */
export function showTip(anchor, ...parts) {
  tip.replaceChildren(...parts.map((part) => (typeof part === "string" ? element("p", "", part) : part)));
  tip.hidden = false;
  const at = anchor.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.max(GAP, Math.min(at.left + at.width / 2 - own.width / 2, innerWidth - own.width - GAP));
  const above = at.top - own.height - GAP;
  tip.style.left = `${Math.round(left)}px`;
  tip.style.top = `${Math.round(above < GAP ? at.bottom + GAP : above)}px`;
}

export function hideTip() {
  tip.hidden = true;
}
