/*
 * The user's token: removed from the URL before anything else runs, and kept for this tab. This is a classic script and
 * the first on the page, so that no module, request or error ever sees a URL with a token.
 *
 * Invariants:
 * 1. A token is taken from the fragment (#token=...), which browsers do not send. A token in the query is removed and
 *    never used, because logs and proxies have seen it already.
 * 2. It is removed from the URL and its history entry immediately; all other parts of the URL are preserved.
 * 3. It is kept in memory and in this tab's sessionStorage, to survive a reload, and ends with the tab. It is never kept
 *    in localStorage or a cookie, which outlive the tab and are shared with other tabs.
 */
(() => {
  "use strict";
  const KEY = "tickertape.token";
  const IN_QUERY = ["token", "access_token", "jwt", "authorization"];

  let token = "";
  try {
    token = sessionStorage.getItem(KEY) ?? "";
  } catch {
    // Storage is disabled: the token lasts as long as the page.
  }

  const save = (text) => {
    token = text;
    try {
      if (text) sessionStorage.setItem(KEY, text);
      else sessionStorage.removeItem(KEY);
    } catch {
      // Storage is disabled or full: as above, the token lasts as long as the page.
    }
  };

  const name = (part) => part.split("=", 1)[0].toLowerCase();
  const without = (text, names) => {
    const sign = text.slice(0, 1);
    const parts = text.slice(1).split("&");
    const kept = parts.filter((part) => !names.includes(name(part)));
    const taken = parts.filter((part) => names.includes(name(part)));
    return { rest: kept.length > 0 && kept[0] ? sign + kept.join("&") : "", taken };
  };

  const value = (part) => {
    const text = part.slice(part.indexOf("=") + 1);
    try {
      return decodeURIComponent(text).trim();
    } catch {
      return text;
    }
  };

  let inQuery = false;

  /** Remove tokens from the URL, and return the one of its fragment; empty if there is none. */
  const takeFromUrl = () => {
    const fragment = without(location.hash, ["token"]);
    const query = without(location.search, IN_QUERY);
    if (fragment.taken.length === 0 && query.taken.length === 0) return "";
    history.replaceState(history.state, "", location.pathname + query.rest + fragment.rest);
    inQuery ||= query.taken.length > 0;
    return fragment.taken.map(value).find(Boolean) ?? "";
  };

  const fromUrl = takeFromUrl();
  if (fromUrl) save(fromUrl);

  const tab = {
    /** Return the tab's token; empty if there is none. */
    read: () => token,
    save,
    forget: () => save(""),
    /** Return whether the query of the URL contained a token. */
    wasInQuery: () => inQuery,
    /** Handle a token in a fragment that is opened in the loaded page; set by app.js. */
    onNewToken: () => {},
  };
  // The interface for the modules.
  window.tickertapeToken = tab;

  // Opening such a URL in this tab only changes the fragment, which does not reload the page.
  window.addEventListener("hashchange", () => {
    const late = takeFromUrl();
    if (late) tab.onNewToken(late);
  });
})();
