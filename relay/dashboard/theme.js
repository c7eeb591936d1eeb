/*
 * Light, dark, or as the system says. A classic script, loaded before the first paint, so that a reader who chose dark
 * never sees a white flash; everything else on the page is a module.
 */
(() => {
  "use strict";
  try {
    const choice = localStorage.getItem("tickertape.theme");
    if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
  } catch {
    // Storage is off: the system's.
  }
})();
