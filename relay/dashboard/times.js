/**
 * Formatting of times and numbers.
 *
 * Invariants: arguments are milliseconds; no function reads the clock; an invalid time is shown as a dash.
 */

import { STRINGS } from "/assets/strings.js";

const pad2 = (value) => String(value).padStart(2, "0");

/**
 * Parse an RFC 3339 time.
 * @param {unknown} text
 * @param {number} fallback result if it is invalid
 * @returns {number} UNIX milliseconds
 */
export function parseTime(text, fallback) {
  const value = typeof text === "string" ? Date.parse(text) : NaN;
  return Number.isNaN(value) ? fallback : value;
}

/**
 * Format the time of day in the user's time zone: 14:03:27.123.
 * @param {number} at UNIX milliseconds
 * @returns {string}
 */
export function clock(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "–";
  const millis = String(date.getMilliseconds()).padStart(3, "0");
  return `${pad2(date.getHours())}:${pad2(date.getMinutes())}:${pad2(date.getSeconds())}.${millis}`;
}

/**
 * Format date and time in the user's time zone, for titles: 2025-06-24 14:03:27.
 * @param {number} at UNIX milliseconds
 * @returns {string}
 */
export function fullTime(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "–";
  const day = `${String(date.getFullYear()).padStart(4, "0")}-${pad2(date.getMonth() + 1)}-${pad2(date.getDate())}`;
  return `${day} ${clock(at).slice(0, 8)}`;
}

/**
 * Format a duration in at most two units: 4 s, 12 m 05 s, 3 h 04 m, 2 d 3 h.
 * @param {number} span milliseconds; negative values count as zero, because clocks differ
 * @returns {string}
 */
export function duration(span) {
  const seconds = Math.max(0, Math.floor(span / 1000));
  if (seconds < 60) return STRINGS.duration.seconds(seconds);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return STRINGS.duration.minutes(minutes, pad2(seconds % 60));
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return STRINGS.duration.hours(hours, pad2(minutes % 60));
  return STRINGS.duration.days(Math.floor(hours / 24), hours % 24);
}

const grouped = new Intl.NumberFormat("en-GB");

/**
 * Format a count with separators: 12,345.
 * @param {number} value
 * @returns {string}
 */
export function count(value) {
  return grouped.format(value);
}
