/**
 * Tooltip, shared by the whole page.
 *
 * Invariants: it contains only text; it never leaves the window; it is hidden when its anchor moves.
 */

import { element } from "/assets/dom.js";

const GAP = 6;

const tip = element("div", "tip");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
(document.querySelector("main") ?? document.body).append(tip);
document.addEventListener("scroll", hideTooltip, { capture: true, passive: true });
window.addEventListener("resize", hideTooltip);

/**
 * Show the tooltip above an element, or below it if there is not enough space.
 * @param {Element} anchor
 * @param {...(Node|string)} parts strings become paragraphs
 */
export function showTooltip(anchor, ...parts) {
  tip.replaceChildren(...parts.map((part) => (typeof part === "string" ? element("p", "", part) : part)));
  tip.hidden = false;
  const at = anchor.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.max(GAP, Math.min(at.left + at.width / 2 - own.width / 2, innerWidth - own.width - GAP));
  const above = at.top - own.height - GAP;
  tip.style.left = `${Math.round(left)}px`;
  tip.style.top = `${Math.round(above < GAP ? at.bottom + GAP : above)}px`;
}

export function hideTooltip() {
  tip.hidden = true;
}
