/**
 * What of the log the reader wants to see: as typed, in the address, as asked of the relay, and as a test.
 *
 * Invariants:
 * 1. Reading what was written gives the same filter; other parts of the address stay as they are.
 * 2. Nothing that looks like a token enters the address.
 * 3. What is asked of the relay brings at least all that passes the test, and the state of every gateway.
 */

import { covers as coversPattern } from "/assets/client/patterns.js";
import { haystack, LEVELS } from "/assets/lines.js";

/**
 * @typedef {object} Filter
 * @property {string} level the least
 * @property {string} source exactly this one; empty for all
 * @property {string[]} words that must all occur
 * @property {string[]} not that must not occur
 */

/** @typedef {{level: string, subjects: string[]}} Ask as the relay takes it; wanted of it, no subjects are all */

const STATE = ["gateway.status.>", "system.health.>"];
const LONGEST_TOKEN = 128;
const SUBJECT = /^[\w=-]+(\.[\w=-]+)+$/;
const PART = /(-?)(?:"([^"]*)(?:"|$)|(\S+))/g;
const SECRET = /^ey[\w-]{8,}\.[\w-]+/;

/** Read what was typed: words, "several words", and -what -"must not" occur. @param {string} typed */
export function readText(typed) {
  const found = { words: [], not: [] };
  for (const [, minus, quoted, plain] of typed.matchAll(PART)) {
    const word = (quoted ?? plain).toLowerCase();
    if (word) found[minus ? "not" : "words"].push(word);
  }
  return found;
}

const quote = (word) => (/\s/.test(word) || word.startsWith("-") ? `"${word}"` : word);

/** What to type for this filter. @param {Filter} filter */
export function writeText({ words, not }) {
  return [...words.map(quote), ...not.map((word) => `-${quote(word)}`)].join(" ");
}

/** The filter that an address names. @param {string} search its query @returns {Filter} */
export function readAddress(search) {
  const query = new URLSearchParams(search);
  const level = (query.get("level") ?? "").toUpperCase();
  const text = (name) => readText(query.get(name) ?? "").words;
  return {
    level: LEVELS.includes(level) ? level : LEVELS[0],
    source: query.get("source") ?? "",
    words: text("text"),
    not: text("not"),
  };
}

/**
 * An address with this filter.
 * @param {Filter} filter
 * @param {string} line cursor of a line that it points at; empty without one
 * @returns {string} path, query and fragment
 */
export function writeAddress({ level, source, words, not }, line) {
  const url = new URL(location.href);
  const text = (parts) => parts.filter((word) => !SECRET.test(word)).map(quote).join(" ");
  const values = { level: level === LEVELS[0] ? "" : level, source, text: text(words), not: text(not), line };
  for (const [name, value] of Object.entries(values)) {
    if (value && !SECRET.test(value)) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  return url.pathname + url.search + url.hash;
}

/** An id as one token of a subject. */
function escapeToken(id) {
  const bytes = new TextEncoder().encode(id);
  const sign = (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return Array.from(bytes, (byte) => (/[\w-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : sign(byte))).join("");
}

/** What to ask the relay for. @param {Filter} filter @returns {Ask} */
export function askFor({ level, source }) {
  const token = source.isWellFormed() ? escapeToken(source) : "";
  if (!token || token.length > LONGEST_TOKEN) return { level, subjects: [] };
  const own = [`log.*.${token}`, `gateway.recovery.*.${token}`];
  // A type that the page does not know shows its subject as its source.
  if (SUBJECT.test(source)) own.push(source);
  return { level, subjects: [...own, ...STATE] };
}

/** Whether two ask for the same. @param {Ask} one @param {Ask} other */
export function same(one, other) {
  return one.level === other.level && one.subjects.join() === other.subjects.join();
}

/** Whether what one asks for holds all that another does. @param {Ask} one @param {Ask} other */
export function covers(one, other) {
  const subjects = other.subjects.every((narrow) => one.subjects.some((wide) => coversPattern(wide, narrow)));
  return subjects && LEVELS.indexOf(one.level) <= LEVELS.indexOf(other.level);
}

/** The test of a filter. @param {Filter} filter @returns {(line: import("/assets/lines.js").Line) => boolean} */
export function testOf({ level, source, words, not }) {
  const least = LEVELS.indexOf(level);
  const token = escapeToken(source);
  const named = (line) => {
    if (line.source === source) return true;
    const [head, , third] = line.item.subject.split(".");
    return head === "log" && third === token;
  };
  return (line) => {
    if (line.level && LEVELS.indexOf(line.level) < least) return false;
    if (source && !named(line)) return false;
    if (words.length === 0 && not.length === 0) return true;
    const text = haystack(line);
    return words.every((word) => text.includes(word)) && !not.some((word) => text.includes(word));
  };
}

/** Whether a filter lets everything through. @param {Filter} filter */
export function isOpen({ level, source, words, not }) {
  return level === LEVELS[0] && !source && words.length === 0 && not.length === 0;
}
