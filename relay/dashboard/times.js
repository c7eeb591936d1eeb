/**
 * Times and numbers as people read them.
 *
 * Invariants: arguments are milliseconds; nothing here reads a clock; a time that cannot be read shows as a dash.
 */

import { STRINGS } from "/assets/strings.js";

const two = (value) => String(value).padStart(2, "0");

/**
 * Read an RFC 3339 time.
 * @param {unknown} text
 * @param {number} fallback what to return when it is not one
 * @returns {number} UNIX milliseconds
 */
export function parseTime(text, fallback) {
  const value = typeof text === "string" ? Date.parse(text) : NaN;
  return Number.isNaN(value) ? fallback : value;
}

/**
 * Time of day in the reader's zone: 14:03:27.123.
 * @param {number} at UNIX milliseconds
 * @returns {string}
 */
export function clock(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "–";
  const millis = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${millis}`;
}

/**
 * Date and time in the reader's zone, for titles: 2025-06-24 14:03:27.
 * @param {number} at UNIX milliseconds
 * @returns {string}
 */
export function fullTime(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "–";
  const day = `${String(date.getFullYear()).padStart(4, "0")}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${clock(at).slice(0, 8)}`;
}

/**
 * A length of time in at most two units: 4 s, 12 m 05 s, 3 h 04 m, 2 d 3 h.
 * @param {number} span milliseconds; below zero counts as zero, since clocks differ
 * @returns {string}
 */
export function duration(span) {
  const seconds = Math.max(0, Math.floor(span / 1000));
  if (seconds < 60) return STRINGS.duration.seconds(seconds);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return STRINGS.duration.minutes(minutes, two(seconds % 60));
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return STRINGS.duration.hours(hours, two(minutes % 60));
  return STRINGS.duration.days(Math.floor(hours / 24), hours % 24);
}

const grouped = new Intl.NumberFormat("en-GB");

/**
 * A count with separators: 12,345.
 * @param {number} value
 * @returns {string}
 */
export function count(value) {
  return grouped.format(value);
}
