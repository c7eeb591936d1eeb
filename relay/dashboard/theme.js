/*
 * Theme: light, dark, or the system's. A classic script that runs before the first paint, so that a dark page does not
 * flash white; everything else on the page is a module.
 */
(() => {
  "use strict";
  try {
    const choice = localStorage.getItem("tickertape.theme");
    if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
  } catch {
    // Storage is disabled: use the system's theme.
  }
})();
