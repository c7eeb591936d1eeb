/*
 * Light, dark, or as the system says. A classic script, loaded before the first paint, so that a reader who
 * chose dark never sees a white flash; everything else on the page is a module.
 *
 * Invariants: the choice lives in localStorage under "tickertape.theme"; no choice means the system's; a
 * browser that refuses storage still gets a working button.
 */
(() => {
  "use strict";
  const KEY = "tickertape.theme";
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");

  const choice = stored();
  if (choice === "light" || choice === "dark") root.dataset.theme = choice;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      const other = current() === "dark" ? "light" : "dark";
      button.title = `Switch to ${other}`;
      button.setAttribute("aria-label", `Switch to ${other} colours`);
    };
    button.addEventListener("click", () => {
      const next = current() === "dark" ? "light" : "dark";
      root.dataset.theme = next;
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // Storage is off: the choice lasts as long as the page.
      }
      show();
    });
    dark.addEventListener("change", show);
    show();
  });
})();
