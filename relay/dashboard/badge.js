/**
 * What a reader sees of a page that is in the background: its title and its icon.
 *
 * Invariants: what may be out of date says that first, since a number of gateways from before a loss is no news.
 */

import { setAttribute } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";

const icon = document.querySelector('link[rel="icon"]');

/** @param {number} down gateways that are down @param {boolean} stale what is known may be out of date */
export function showBadge(down, stale) {
  const [mark, name] = stale ? [STRINGS.link.outOfDate, "-stale"] : down > 0 ? [STRINGS.link.down(down), "-down"] : ["", ""];
  const title = [mark, STRINGS.name].filter(Boolean).join(" ");
  if (document.title !== title) document.title = title;
  if (icon) setAttribute(icon, "href", `/assets/favicon${name}.svg`);
}
