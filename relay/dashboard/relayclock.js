/**
 * The relay's clock: this device's clock may be wrong, and the page shows how long ago things happened.
 *
 * Invariants: differences that network latency can explain are ignored; until the relay reports its time, the device's
 * clock is used.
 */

/** Differences up to this are ignored: a Date header has a resolution of seconds, and a response takes time. */
const TOLERANCE_MS = 2_000;

/** Unit of the reported difference; a difference below half a minute is corrected, but not reported. */
const REPORTED_MS = 60_000;

let ahead = 0;

/** Return the current time of the relay, UNIX milliseconds. */
export const relayNow = () => Date.now() - ahead;

/** Return what to add to a time of the relay to get this device's time, milliseconds. */
export const clockOffset = () => ahead;

/** Return how far this device's clock is ahead, in full minutes as milliseconds; 0 if it is not worth reporting. */
export const clockError = () => Math.round(ahead / REPORTED_MS) * REPORTED_MS;

/** Set the clock to the relay's current time. @param {string|null|undefined} time in any format that Date.parse accepts */
export function setRelayTime(time) {
  const relayTime = Date.parse(time ?? "");
  if (Number.isNaN(relayTime)) return;
  const off = Date.now() - relayTime;
  ahead = Math.abs(off) > TOLERANCE_MS ? off : 0;
}

/** Fetch the relay's current time. */
export async function fetchRelayTime() {
  const response = await fetch("/health", { cache: "no-store" }).catch(() => null);
  setRelayTime(response?.headers.get("Date"));
}
