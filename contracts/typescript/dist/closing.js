/** What follows a close: the table of close codes, and how long to wait. */
import { CLOSE_CODES } from "./types.js";
/** Longest first wait, and longest wait at all, in milliseconds. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 20_000;
/** Added at random to a wait that the relay named, so that not all of its clients are back in one moment. */
const SPREAD_MS = 500;
/** What a close code means and asks for; one that is not in the table is a link that broke. */
export function closeRule(code) {
    const rules = CLOSE_CODES;
    return rules[code] ?? { meaning: "the connection was lost", reconnect: "backoff" };
}
/**
 * Milliseconds to wait before coming back: anything up to twice as long each time (full jitter), unless the
 * relay named a time, which is never cut short.
 *
 * @param attempt how many have failed in a row, from 0
 * @param retryAfterMs what the relay named
 */
export function waitBefore(attempt, retryAfterMs = null) {
    return retryAfterMs === null
        ? Math.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** attempt)
        : retryAfterMs + Math.random() * SPREAD_MS;
}
