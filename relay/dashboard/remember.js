/**
 * What the reader chose, kept for the next visit.
 *
 * Invariants: nothing is kept before the reader chooses something, nor a choice that is what there is without one;
 * a browser that refuses storage still gets a page that works.
 */

const PREFIX = "tickertape.";

/** @param {string} name @returns {string} empty when nothing was chosen */
export function recall(name) {
  try {
    return localStorage.getItem(PREFIX + name) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} name @param {string} value empty forgets it */
export function store(name, value) {
  try {
    if (value) localStorage.setItem(PREFIX + name, value);
    else localStorage.removeItem(PREFIX + name);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
}
