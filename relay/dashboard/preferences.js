/**
 * Preferences of the user, stored for the next visit.
 *
 * Invariants: nothing is stored until the user chooses something, and a default is not stored; the page works in
 * browsers that deny storage.
 */

const PREFIX = "tickertape.";

/** Read a preference. @param {string} name @returns {string} empty if it is not set */
export function readPreference(name) {
  try {
    return localStorage.getItem(PREFIX + name) ?? "";
  } catch {
    return "";
  }
}

/** Save a preference. @param {string} name @param {string} value empty to remove it */
export function savePreference(name, value) {
  try {
    if (value) localStorage.setItem(PREFIX + name, value);
    else localStorage.removeItem(PREFIX + name);
  } catch {
    // Storage is disabled: the choice lasts as long as the page.
  }
}
