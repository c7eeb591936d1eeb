/**
 * Conversion of events, gaps and notices to lines of the log.
 *
 * Invariants: lines are immutable; every event has a line, even one of an unknown type; a multi-line message takes one
 * row, with its line breaks shown as a symbol.
 */

import { readCursor } from "/assets/cursor.js";
import { reasonLabel, statusLabel } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { count, parseTime } from "/assets/times.js";

/** Levels in ascending order. */
export const LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"];

/** Maximum number of characters of a message in a row; the details show the rest. */
const ROW_CHARACTERS = 1_000;

/**
 * @typedef {object} Gap
 * @property {string} from cursor after which events are missing; empty if nothing can be loaded
 * @property {string} to cursor up to which, inclusive, events are missing
 * @property {number|null} dropped number of missing events; null if it is unknown
 * @property {Record<string, number>} by
 * @property {string} reason of the relay, or of the page: `filter` and `link` for events that it did not request,
 *   `older` for events from before it was opened
 * @property {import("/assets/filters.js").Subscription} [subscription] in effect when the gap occurred
 * @property {string} state empty, `loading`, or why loading failed
 * @property {Line[]} parts gaps that it joins
 */

/**
 * @typedef {object} Line
 * @property {"log"|"status"|"recovery"|"health"|"other"|"gap"|"notice"} kind
 * @property {number} at UNIX milliseconds
 * @property {number} order position among all lines: the sequence; for a gap, its first sequence plus a half
 * @property {string} level empty if there is none: such a line passes every level filter
 * @property {string} label text in the level column
 * @property {string} source
 * @property {string} message
 * @property {number} bytes approximate size
 * @property {Gap|null} gap
 * @property {{subject: string, seq: number, event: Record<string, any>}|null} item the event
 */

const string = (value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));

function line(kind, at, order, parts) {
  const message = parts.message.slice(0, ROW_CHARACTERS).replace(/\s*[\r\n]+\s*/g, " ↵ ");
  const { level = "", label = level, source = "", bytes = 0, gap = null, item = null } = parts;
  return { kind, at, order, level, label, source, message, bytes, gap, item };
}

/** Return the lower-case text to search. Not cached, because that would double the memory of a line. */
export function searchText({ label, source, message, item }) {
  const full = typeof item?.event.message === "string" ? item.event.message : message;
  return `${label} ${source} ${full} ${item?.subject ?? ""}`.toLowerCase();
}

/** Return the level in a subject, or INFO: the contract treats all others as INFO. */
function levelOf(subject) {
  const [head, level = ""] = subject.split(".");
  const name = level.toUpperCase();
  return head === "log" && LEVELS.includes(name) ? name : "INFO";
}

/**
 * Create the line of an event.
 * @param {{subject: string, seq: number, event: Record<string, any>}} item
 * @param {number} bytes approximate size
 * @param {number} now UNIX milliseconds, for an event without a timestamp
 * @param {number} [base] offset of the sequences, after the stream was recreated
 * @returns {Line}
 */
export function eventLine(item, bytes, now, base = 0) {
  const { subject, event } = item;
  const at = parseTime(event.timestamp, now);
  const order = base + item.seq;
  switch (event.event_type) {
    case "system_log": {
      const level = LEVELS.includes(event.level) ? event.level : levelOf(subject);
      return line("log", at, order, { level, source: string(event.source), message: string(event.message), bytes, item });
    }
    case "gateway_status_change": {
      const fault = event.metadata?.error ?? event.metadata?.reason;
      const change = STRINGS.gateways.change(statusLabel(string(event.previous_status)), statusLabel(string(event.current_status)));
      const message = fault ? `${change}  ${reasonLabel(string(fault))}` : change;
      return line("status", at, order, { label: STRINGS.line.status, source: string(event.gateway_id), message, bytes, item });
    }
    case "gateway_recovery": {
      const message = STRINGS.line.recovers(string(event.phase), string(event.attempt));
      const source = string(event.gateway_id);
      return line("recovery", at, order, { level: "INFO", label: STRINGS.line.recovery, source, message, bytes, item });
    }
    case "system_health": {
      const source = [event.component, event.instance].filter(Boolean).map(string).join(" ");
      const message = statusLabel(string(event.status));
      return line("health", at, order, { level: "DEBUG", label: STRINGS.line.health, source, message, bytes, item });
    }
    default: {
      const { event_type: type, timestamp: _, ...rest } = event;
      const level = levelOf(subject);
      return line("other", at, order, { level, source: subject, message: `${type} ${string(rest)}`, bytes, item });
    }
  }
}

/** Reasons of gaps that cannot be loaded, and reasons set by the page. */
const UNAVAILABLE = ["retention", "reset"];
const NOT_REQUESTED = ["filter", "link"];
const OLDER = "older";

function gapMessage({ dropped, by, reason }) {
  if (NOT_REQUESTED.includes(reason)) return STRINGS.gap[reason];
  const what = dropped === null ? STRINGS.gap.unknown : STRINGS.gap.events(dropped, count(dropped));
  if (UNAVAILABLE.includes(reason)) return STRINGS.gap[reason](what, dropped);
  if (reason === OLDER) return STRINGS.gap.older(what, dropped);
  const parts = Object.entries(by).sort((a, b) => b[1] - a[1]);
  const detail = parts.map(([name, number]) => STRINGS.gap.part(count(number), name)).join(", ");
  return STRINGS.gap.dropped(what, reason, detail);
}

/** Return whether the missing events may still be loaded. @param {Line} line */
export function canLoad({ gap }) {
  return gap !== null && gap.from !== "" && !UNAVAILABLE.includes(gap.reason) && gap.state !== "loading";
}

/**
 * Create the line of a gap.
 * @param {Record<string, any>} message of the relay, or an existing gap with a `state`
 * @param {number} at UNIX milliseconds, NaN if it is unknown
 * @param {number} [base] offset of the sequences
 * @returns {Line}
 */
export function gapLine(message, at, base = 0) {
  const { from = "", to = "", dropped = null, by, state = "", parts = [], subscription } = message;
  const gap = { from, to, dropped, by: by ?? {}, reason: string(message.reason), state, parts, subscription };
  const fault = state && state !== "loading" ? STRINGS.gap.failed(state) : "";
  return line("gap", at, base + readCursor(from).seq + 0.5, { label: STRINGS.line.gap, message: gapMessage(gap) + fault, gap });
}

/**
 * Join two adjacent gaps.
 * @param {Line} first
 * @param {Line} second
 * @returns {Line|null} null if they differ in reason or state
 */
export function joinGaps(first, second) {
  const [a, b] = [first.gap, second.gap];
  if (!a || !b || a.reason !== b.reason || a.state || b.state || a.subscription !== b.subscription) return null;
  const by = { ...a.by };
  for (const [name, number] of Object.entries(b.by)) by[name] = (by[name] ?? 0) + number;
  const dropped = a.dropped === null || b.dropped === null ? null : a.dropped + b.dropped;
  const parts = [...(a.parts.length ? a.parts : [first]), second];
  const joined = gapLine({ from: a.from, to: b.to, dropped, by, reason: b.reason, parts, subscription: b.subscription }, second.at);
  return { ...joined, order: second.order };
}

/**
 * Create a line for a message of the page itself.
 * @param {string} message
 * @param {number} now UNIX milliseconds
 * @param {number} [order] position of the line before it
 * @returns {Line}
 */
export function noticeLine(message, now, order = 0) {
  return line("notice", now, order, { label: STRINGS.line.page, message });
}
