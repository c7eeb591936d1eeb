/**
 * What to do after a close: the table of close codes, and how long to wait.
 *
 * Invariants: the table says the same as contracts/codes.py; a code that is not in it (1006, a proxy's own) is
 * a link that broke, so the page comes back; waits are spread over their whole range, so that the pages of one
 * relay do not all return in the same second.
 */

/** @typedef {"never"|"backoff"|"after"|"token"} Next what a page does after a close */

/** @type {Map<number, {meaning: string, next: Next}>} */
const CODES = new Map([
  [1000, { meaning: "the relay is done", next: "never" }],
  [1001, { meaning: "the relay is restarting", next: "after" }],
  [1002, { meaning: "a frame was broken", next: "never" }],
  [1003, { meaning: "a message was binary", next: "never" }],
  [1007, { meaning: "a message was not UTF-8", next: "never" }],
  [1009, { meaning: "a message was too large", next: "never" }],
  [1011, { meaning: "the relay had a fault", next: "backoff" }],
  [4400, { meaning: "the relay refused a message", next: "never" }],
  [4401, { meaning: "a valid token is needed", next: "token" }],
  [4403, { meaning: "the token grants nothing", next: "never" }],
  [4408, { meaning: "the relay waited in vain for this page", next: "backoff" }],
  [4409, { meaning: "the relay refused the filter or the cursor", next: "never" }],
  [4429, { meaning: "too many connections from here", next: "backoff" }],
  [4503, { meaning: "the relay cannot serve yet", next: "backoff" }],
]);

/** Longest first wait, and longest wait at all, in milliseconds. */
export const FIRST_WAIT_MS = 500;
export const LONGEST_WAIT_MS = 20_000;

/** Added at random to a wait that the relay named. */
const SPREAD_MS = 500;

/**
 * What a close code means and asks for.
 * @param {number} code
 * @returns {{meaning: string, next: Next}}
 */
export function closeRule(code) {
  return CODES.get(code) ?? { meaning: "the connection was lost", next: "backoff" };
}

/**
 * How long to wait before coming back: full jitter, unless the relay named a time.
 * @param {number} attempt how many attempts have failed in a row, from 0
 * @param {number|null} retryAfterMs what `bye` named
 * @param {() => number} [random] in [0, 1)
 * @returns {number} milliseconds
 */
export function waitBefore(attempt, retryAfterMs, random = Math.random) {
  if (retryAfterMs !== null) return retryAfterMs + random() * SPREAD_MS;
  const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(attempt, 16));
  return random() * ceiling;
}
