/** What follows a close: the table of close codes, and how long to wait. */
import { type CloseRule } from "./types.js";
/** What a close code means and asks for; one that is not in the table is a link that broke. */
export declare function closeRule(code: number): Pick<CloseRule, "meaning" | "reconnect">;
/**
 * Milliseconds to wait before coming back: anything up to twice as long each time (full jitter), unless the
 * relay named a time, which is never cut short.
 *
 * @param attempt how many have failed in a row, from 0
 * @param retryAfterMs what the relay named
 */
export declare function waitBefore(attempt: number, retryAfterMs?: number | null): number;
