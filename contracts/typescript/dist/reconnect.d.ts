/** Reconnect policy: what a close code asks for, and how long to back off. */
import { type CloseRule } from "./types.js";
/** Return the rule of a close code; an unknown code counts as a broken connection. */
export declare function closeRule(code: number): Pick<CloseRule, "meaning" | "reconnect">;
/**
 * Return the delay before the next attempt in milliseconds: exponential backoff with full jitter, or the delay
 * that the relay set, which is never shortened.
 *
 * @param attempt number of failed attempts in a row
 * @param retryAfterMs delay set by the relay
 */
export declare function backoffMs(attempt: number, retryAfterMs?: number | null): number;
