/**
 * The button that switches between light and dark.
 *
 * Invariants: the choice lives where theme.js looks for it; a browser that refuses storage still gets a working button,
 * and no choice means the system's.
 */

import { byId, setAttribute } from "/assets/dom.js";
import { store } from "/assets/remember.js";
import { STRINGS } from "/assets/strings.js";

const root = document.documentElement;
const system = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

function show() {
  const button = byId("theme");
  const text = STRINGS.wishes.theme(!isDark());
  setAttribute(button, "title", text);
  setAttribute(button, "aria-label", text);
}

/** Make it work. */
export function beginTheme() {
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store("theme", root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}
