/**
 * Pages of the stream's history, read through GET /events.
 *
 * Invariants: pages of the log are read one at a time; this tab's token is sent in a header and never in the URL; a busy
 * relay is retried a few times, after the delay that it sets.
 */

import { STRINGS } from "/assets/strings.js";

export const PAGE = 1_000;
const ATTEMPTS = 4;
const LONGEST_WAIT_S = 5;

let turn = Promise.resolve();

/**
 * Read one page of the log, after those requested before.
 * @param {Record<string, string|string[]>} query as for fetchPage
 */
export function readPage(query) {
  const page = turn.then(() => fetchPage(query));
  turn = page.then(
    () => {},
    () => {},
  );
  return page;
}

/**
 * Fetch one page.
 * @param {Record<string, string|string[]>} query parameters of the request; empty ones are left out
 * @param {AbortSignal} [signal] cancels the request
 * @returns {Promise<{events: import("/assets/link.js").Item[], cursor: string, more: boolean, gap?: Record<string, any>}>}
 * @throws {Error} with the relay's message
 */
export async function fetchPage(query, signal) {
  const given = Object.entries(query).filter(([, value]) => value.length > 0);
  const token = window.tickertapeToken.read();
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(`/events?${new URLSearchParams(given)}`, { signal, headers, cache: "no-store" });
    } catch {
      throw new Error(STRINGS.link.noResponse);
    }
    if (response.ok) return response.json();
    const busy = response.status === 429 || response.status === 503;
    if (!busy || attempt === ATTEMPTS) throw new Error(await reason(response));
    const wait = Number(response.headers.get("Retry-After")) || attempt;
    await new Promise((resolve) => setTimeout(resolve, 1_000 * Math.min(LONGEST_WAIT_S, wait)));
  }
}

async function reason(response) {
  try {
    return (await response.json()).message;
  } catch {
    return STRINGS.link.httpError(response.status, "");
  }
}
