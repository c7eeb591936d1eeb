/**
 * Title and icon of the page, for when it is in the background.
 *
 * Invariants: stale data comes first, because a count of gateways from before a disconnect is not reliable.
 */

import { setAttribute } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";

const icon = document.querySelector('link[rel="icon"]');

/** Update the title and icon. @param {number} down gateways that are down @param {boolean} stale whether data may be outdated */
export function showBadge(down, stale) {
  const [mark, name] = stale ? [STRINGS.link.outOfDate, "-stale"] : down > 0 ? [STRINGS.link.down(down), "-down"] : ["", ""];
  const title = [mark, STRINGS.name].filter(Boolean).join(" ");
  if (document.title !== title) document.title = title;
  if (icon) setAttribute(icon, "href", `/assets/favicon${name}.svg`);
}
