/**
 * What time it is, by the relay's clock: this device's may be an hour off, and what is told here is how long ago
 * things happened.
 *
 * Invariants: a difference that a slow network could be is none; without a word of the relay the device's clock
 * counts.
 */

/** A header tells seconds, and an answer takes its time. */
const UNSURE_MS = 2_000;

/** About so far off, people read wrong times elsewhere too: they are told. */
const TOLD_MS = 60_000;

let ahead = 0;

/** UNIX milliseconds, as the relay has them. */
export const present = () => Date.now() - ahead;

/** What is to be added to a time of the relay to have it on this device's clock, milliseconds. */
export const offset = () => ahead;

/** How far this device's clock is ahead, whole minutes in milliseconds; 0 unless it is worth telling. */
export const clockError = () => Math.round(ahead / TOLD_MS) * TOLD_MS;

/** The relay said what time it is, just now. @param {string|null|undefined} time in any form that browsers read */
export function heardTime(time) {
  const told = Date.parse(time ?? "");
  if (Number.isNaN(told)) return;
  const off = Date.now() - told;
  ahead = Math.abs(off) > UNSURE_MS ? off : 0;
}

/** Ask the relay for its time. */
export async function askTime() {
  const answer = await fetch("/health", { cache: "no-store" }).catch(() => null);
  heardTime(answer?.headers.get("Date"));
}
