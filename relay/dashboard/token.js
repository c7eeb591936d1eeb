/*
 * The reader's token: taken out of the address before anything else runs, and kept for this tab. A classic
 * script, and the first of the page, so that no module, request or error ever sees an address with it.
 *
 * Invariants:
 * 1. A token is taken from the fragment (#token=...), which browsers send to nobody. One in the query is
 *    removed and never used: it has been through logs and proxies already.
 * 2. It leaves the address and its place in the history at once; other parts of both stay as they were.
 * 3. It is kept in memory, and in this tab's sessionStorage, since a reload would lose it otherwise; it ends
 *    with the tab. Never in localStorage or a cookie, which outlive the tab and are shared with others.
 */
(() => {
  "use strict";
  const KEY = "tickertape.token";
  const IN_QUERY = ["token", "access_token", "jwt", "authorization"];

  let token = "";
  try {
    token = sessionStorage.getItem(KEY) ?? "";
  } catch {
    // Storage is off: the token lasts as long as the page.
  }

  const keep = (text) => {
    token = text;
    try {
      if (text) sessionStorage.setItem(KEY, text);
      else sessionStorage.removeItem(KEY);
    } catch {
      // As above.
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

  /** Clean the address, and return the token that it brought; empty without one. */
  const takeFromAddress = () => {
    const fragment = without(location.hash, ["token"]);
    const query = without(location.search, IN_QUERY);
    if (fragment.taken.length === 0 && query.taken.length === 0) return "";
    history.replaceState(history.state, "", location.pathname + query.rest + fragment.rest);
    inQuery ||= query.taken.length > 0;
    return fragment.taken.map(value).find(Boolean) ?? "";
  };

  const brought = takeFromAddress();
  if (brought) keep(brought);

  const tab = {
    /** The token of this tab; empty without one. */
    read: () => token,
    keep,
    forget: () => keep(""),
    /** True when the address had a token in its query. */
    wasInQuery: () => inQuery,
    /** Called with the token that a fragment brings to a page that is open already. */
    onBrought: () => {},
  };
  // What the modules see of it.
  window.tickertapeToken = tab;

  // Whoever pastes such an address into a tab with this page gets no new page, only this.
  window.addEventListener("hashchange", () => {
    const late = takeFromAddress();
    if (late) tab.onBrought(late);
  });
})();
