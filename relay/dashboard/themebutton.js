/**
 * Button that switches between light and dark.
 *
 * Invariants: the choice is stored where theme.js reads it; the button works in browsers that deny storage; without a
 * choice the system's theme is used.
 */

import { byId, setAttribute } from "/assets/dom.js";
import { savePreference } from "/assets/preferences.js";
import { STRINGS } from "/assets/strings.js";

const root = document.documentElement;
const system = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

function show() {
  const button = byId("theme");
  const text = STRINGS.controls.theme(!isDark());
  setAttribute(button, "title", text);
  setAttribute(button, "aria-label", text);
}

/** Initialize the button. */
export function initTheme() {
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    savePreference("theme", root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}
