/**
 * Events, gaps and notices as lines of the log.
 *
 * Invariants: a line is made once and never changes; every event has a line, also one of a type that this page
 * has never heard of; a message of several lines stands in one row, its breaks shown as a sign.
 */

import { word } from "/assets/status.js";
import { count, parseTime } from "/assets/times.js";

/** Levels, least first. */
export const LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"];

/** Characters of a message that a row holds; the whole of it is one key away. */
const ROW_CHARACTERS = 1_000;

/**
 * @typedef {object} Line
 * @property {"log"|"status"|"recovery"|"health"|"other"|"gap"|"notice"} kind
 * @property {number} at UNIX milliseconds
 * @property {string} level empty where there is none: such a line passes every level filter
 * @property {string} label what stands in the level's column
 * @property {string} source
 * @property {string} message
 * @property {string} haystack what the text filter looks in, lower case
 * @property {number} bytes about what it weighs
 * @property {{dropped: number|null, by: Record<string, number>, reason: string}|null} gap
 * @property {{subject: string, seq: number, event: object}|null} item the event itself
 */

const string = (value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));

function line(kind, at, parts) {
  const message = parts.message.slice(0, ROW_CHARACTERS).replace(/\s*[\r\n]+\s*/g, " ↵ ");
  const { level = "", label = level, source = "", bytes = 0, gap = null, item = null } = parts;
  const subject = item?.subject ?? "";
  const haystack = `${label} ${source} ${parts.message} ${subject}`.toLowerCase();
  return { kind, at, level, label, source, message, haystack, bytes: bytes + 2 * haystack.length, gap, item };
}

/** Level that a subject names, or INFO: the contract counts everything else as that. */
function levelOf(subject) {
  const [head, level = ""] = subject.split(".");
  const name = level.toUpperCase();
  return head === "log" && LEVELS.includes(name) ? name : "INFO";
}

/**
 * The line of an event.
 * @param {{subject: string, seq: number, event: Record<string, any>}} item
 * @param {number} bytes about its size
 * @param {number} now UNIX milliseconds, for an event without a time
 * @returns {Line}
 */
export function eventLine(item, bytes, now) {
  const { subject, event } = item;
  const at = parseTime(event.timestamp, now);
  switch (event.event_type) {
    case "system_log": {
      const level = LEVELS.includes(event.level) ? event.level : levelOf(subject);
      return line("log", at, { level, source: string(event.source), message: string(event.message), bytes, item });
    }
    case "gateway_status_change": {
      const fault = event.metadata?.error ?? event.metadata?.reason;
      const change = `${word(string(event.previous_status))} → ${word(string(event.current_status))}`;
      const message = fault ? `${change}  ${string(fault)}` : change;
      return line("status", at, { label: "STATUS", source: string(event.gateway_id), message, bytes, item });
    }
    case "gateway_recovery": {
      const message = `recovery ${string(event.phase)}, attempt ${string(event.attempt)}`;
      const source = string(event.gateway_id);
      return line("recovery", at, { level: "INFO", label: "RECOVERY", source, message, bytes, item });
    }
    case "system_health": {
      const source = [event.component, event.instance].filter(Boolean).map(string).join(" ");
      const message = word(string(event.status));
      return line("health", at, { level: "DEBUG", label: "HEALTH", source, message, bytes, item });
    }
    default: {
      const { event_type: type, timestamp: _, ...rest } = event;
      const level = levelOf(subject);
      return line("other", at, { level, source: subject, message: `${type} ${string(rest)}`, bytes, item });
    }
  }
}

function gapMessage({ dropped, by, reason }) {
  const what = dropped === null ? "An unknown number of events" : `${count(dropped)} ${dropped === 1 ? "event" : "events"}`;
  const parts = Object.entries(by).sort((a, b) => b[1] - a[1]);
  const detail = parts.map(([name, number]) => `${count(number)} ${name}`).join(", ");
  return `${what} passed over (${reason})${detail ? `: ${detail}` : ""}`;
}

/**
 * The line of a gap.
 * @param {Record<string, any>} message
 * @param {number} at UNIX milliseconds, NaN where it cannot be known
 * @returns {Line}
 */
export function gapLine(message, at) {
  const gap = { dropped: message.dropped ?? null, by: message.by ?? {}, reason: string(message.reason) };
  return line("gap", at, { label: "GAP", message: gapMessage(gap), gap });
}

/**
 * Two gaps with nothing shown between them, as one.
 * @param {Line} first
 * @param {Line} second of the same reason
 * @returns {Line}
 */
export function joinGaps(first, second) {
  const by = { ...first.gap.by };
  for (const [name, number] of Object.entries(second.gap.by)) by[name] = (by[name] ?? 0) + number;
  const unknown = first.gap.dropped === null || second.gap.dropped === null;
  const dropped = unknown ? null : first.gap.dropped + second.gap.dropped;
  return gapLine({ dropped, by, reason: second.gap.reason }, second.at);
}

/**
 * A line of the page itself.
 * @param {string} message
 * @param {number} now UNIX milliseconds
 * @returns {Line}
 */
export function noticeLine(message, now) {
  return line("notice", now, { label: "PAGE", message });
}
