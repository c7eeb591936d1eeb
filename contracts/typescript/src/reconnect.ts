/** Reconnect policy: what a close code asks for, and how long to back off. */

import { CLOSE_CODES, type CloseRule } from "./types.js";

/** Maximum delay of the first attempt, and of any attempt, in milliseconds. */
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 20_000;

/** Jitter added to a delay that the relay set, so that its clients do not all return in the same moment. */
const JITTER_MS = 500;

/** Return the rule of a close code; an unknown code counts as a broken connection. */
export function closeRule(code: number): Pick<CloseRule, "meaning" | "reconnect"> {
  const rules: Record<number, CloseRule> = CLOSE_CODES;
  return rules[code] ?? { meaning: "connection lost", reconnect: "backoff" };
}

/**
 * Return the delay before the next attempt in milliseconds: exponential backoff with full jitter, or the delay
 * that the relay set, which is never shortened.
 *
 * @param attempt number of failed attempts in a row
 * @param retryAfterMs delay set by the relay
 */
export function backoffMs(attempt: number, retryAfterMs: number | null = null): number {
  return retryAfterMs === null
    ? Math.random() * Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt)
    : retryAfterMs + Math.random() * JITTER_MS;
}
