/**
 * Filter of the log: as typed, in the URL, as a subscription, and as a predicate.
 *
 * Invariants:
 * 1. Parsing a formatted filter yields the same filter; other parts of the URL are left alone.
 * 2. Nothing that looks like a token is put into the URL.
 * 3. The subscription brings at least all lines that match, and the state of every gateway.
 */

import { covers as coversPattern } from "/assets/client/patterns.js";
import { searchText, LEVELS } from "/assets/lines.js";

/**
 * @typedef {object} Filter
 * @property {string} level minimum level
 * @property {string} source exact source; empty for all
 * @property {string[]} words that a line has to contain
 * @property {string[]} not words that it must not contain
 */

/** @typedef {{level: string, subjects: string[]}} Subscription as sent to the relay; no subjects select everything */

const STATE_SUBJECTS = ["gateway.status.>", "system.health.>"];
const MAX_TOKEN_LENGTH = 128;
const SUBJECT = /^[\w=-]+(\.[\w=-]+)+$/;
const PART = /(-?)(?:"([^"]*)(?:"|$)|(\S+))/g;
const SECRET = /^ey[\w-]{8,}\.[\w-]+/;

/** Parse typed text: words and "phrases" to match; with a leading minus, to exclude. @param {string} typed */
export function parseText(typed) {
  const found = { words: [], not: [] };
  for (const [, minus, quoted, plain] of typed.matchAll(PART)) {
    const word = (quoted ?? plain).toLowerCase();
    if (word) found[minus ? "not" : "words"].push(word);
  }
  return found;
}

const quote = (word) => (/\s/.test(word) || word.startsWith("-") ? `"${word}"` : word);

/** Format a filter's words as typed text. @param {Filter} filter */
export function formatText({ words, not }) {
  return [...words.map(quote), ...not.map((word) => `-${quote(word)}`)].join(" ");
}

/** Parse the filter in a URL. @param {string} search query of the URL @returns {Filter} */
export function parseUrl(search) {
  const query = new URLSearchParams(search);
  const level = (query.get("level") ?? "").toUpperCase();
  const text = (name) => parseText(query.get(name) ?? "").words;
  return {
    level: LEVELS.includes(level) ? level : LEVELS[0],
    source: query.get("source") ?? "",
    words: text("text"),
    not: text("not"),
  };
}

/**
 * Format a URL with a filter.
 * @param {Filter} filter
 * @param {string} line cursor of a line to link to; empty if there is none
 * @returns {string} path, query and fragment
 */
export function formatUrl({ level, source, words, not }, line) {
  const url = new URL(location.href);
  const text = (parts) => parts.filter((word) => !SECRET.test(word)).map(quote).join(" ");
  const values = { level: level === LEVELS[0] ? "" : level, source, text: text(words), not: text(not), line };
  for (const [name, value] of Object.entries(values)) {
    if (value && !SECRET.test(value)) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  return url.pathname + url.search + url.hash;
}

/** Escape an identifier as one token of a subject. */
function escapeToken(id) {
  const bytes = new TextEncoder().encode(id);
  const sign = (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return Array.from(bytes, (byte) => (/[\w-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : sign(byte))).join("");
}

/** Return the subscription for a filter. @param {Filter} filter @returns {Subscription} */
export function subscriptionFor({ level, source }) {
  const token = source.isWellFormed() ? escapeToken(source) : "";
  if (!token || token.length > MAX_TOKEN_LENGTH) return { level, subjects: [] };
  const own = [`log.*.${token}`, `gateway.recovery.*.${token}`];
  // Events of unknown types show their subject as their source.
  if (SUBJECT.test(source)) own.push(source);
  return { level, subjects: [...own, ...STATE_SUBJECTS] };
}

/** Return whether two subscriptions are equal. @param {Subscription} a @param {Subscription} b */
export function sameSubscription(a, b) {
  return a.level === b.level && a.subjects.join() === b.subjects.join();
}

/** Return whether a subscription covers another one. @param {Subscription} wide @param {Subscription} narrow */
export function covers(wide, narrow) {
  const subjects = narrow.subjects.every((inner) => wide.subjects.some((outer) => coversPattern(outer, inner)));
  return subjects && LEVELS.indexOf(wide.level) <= LEVELS.indexOf(narrow.level);
}

/** Return a filter's predicate. @param {Filter} filter @returns {(line: import("/assets/lines.js").Line) => boolean} */
export function matcherFor({ level, source, words, not }) {
  const minLevel = LEVELS.indexOf(level);
  const token = escapeToken(source);
  const named = (line) => {
    if (line.source === source) return true;
    const [head, , third] = line.item.subject.split(".");
    return head === "log" && third === token;
  };
  return (line) => {
    if (line.level && LEVELS.indexOf(line.level) < minLevel) return false;
    if (source && !named(line)) return false;
    if (words.length === 0 && not.length === 0) return true;
    const text = searchText(line);
    return words.every((word) => text.includes(word)) && !not.some((word) => text.includes(word));
  };
}

/** Return whether a filter matches everything. @param {Filter} filter */
export function isEmpty({ level, source, words, not }) {
  return level === LEVELS[0] && !source && words.length === 0 && not.length === 0;
}
