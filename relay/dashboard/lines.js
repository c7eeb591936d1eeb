/**
 * Events, gaps and notices as lines of the log.
 *
 * Invariants: a line is made once and never changes; every event has a line, also one of a type that this page
 * has never heard of; a message of several lines stands in one row, its breaks shown as a sign.
 */

import { readCursor } from "/assets/cursor.js";
import { word } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { count, parseTime } from "/assets/times.js";

/** Levels, least first. */
export const LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"];

/** Characters of a message that a row holds; the whole of it is one key away. */
const ROW_CHARACTERS = 1_000;

/**
 * @typedef {object} Gap
 * @property {string} from cursor: what is missing lies after it; empty where nothing can be loaded
 * @property {string} to cursor: up to and with it
 * @property {number|null} dropped events that did not come; null where nobody can know
 * @property {Record<string, number>} by
 * @property {string} reason as the relay says it; `filter` or `link`: this page did not ask for
 *   them; `older`: they were there before the page was
 * @property {import("/assets/filters.js").Ask} [ask] what was asked for when it came about
 * @property {string} state empty, `loading`, or why it could not be loaded
 * @property {Line[]} parts the gaps that it joins
 */

/**
 * @typedef {object} Line
 * @property {"log"|"status"|"recovery"|"health"|"other"|"gap"|"notice"} kind
 * @property {number} at UNIX milliseconds
 * @property {number} order its place among all lines: its sequence; a gap stands half behind what it begins with
 * @property {string} level empty where there is none: such a line passes every level filter
 * @property {string} label what stands in the level's column
 * @property {string} source
 * @property {string} message
 * @property {number} bytes about what it weighs
 * @property {Gap|null} gap
 * @property {{subject: string, seq: number, event: Record<string, any>}|null} item the event itself
 */

const string = (value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));

function line(kind, at, order, parts) {
  const message = parts.message.slice(0, ROW_CHARACTERS).replace(/\s*[\r\n]+\s*/g, " ↵ ");
  const { level = "", label = level, source = "", bytes = 0, gap = null, item = null } = parts;
  return { kind, at, order, level, label, source, message, bytes, gap, item };
}

/** What a text filter looks in, lower case. Made when it is needed: kept, it would double what a line weighs. */
export function haystack({ label, source, message, item }) {
  const whole = typeof item?.event.message === "string" ? item.event.message : message;
  return `${label} ${source} ${whole} ${item?.subject ?? ""}`.toLowerCase();
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
 * @param {number} [base] what sequences of this stream count from, when others came before it
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
      const change = STRINGS.gateways.change(word(string(event.previous_status)), word(string(event.current_status)));
      const message = fault ? `${change}  ${string(fault)}` : change;
      return line("status", at, order, { label: STRINGS.line.status, source: string(event.gateway_id), message, bytes, item });
    }
    case "gateway_recovery": {
      const message = STRINGS.line.recovers(string(event.phase), string(event.attempt));
      const source = string(event.gateway_id);
      return line("recovery", at, order, { level: "INFO", label: STRINGS.line.recovery, source, message, bytes, item });
    }
    case "system_health": {
      const source = [event.component, event.instance].filter(Boolean).map(string).join(" ");
      const message = word(string(event.status));
      return line("health", at, order, { level: "DEBUG", label: STRINGS.line.health, source, message, bytes, item });
    }
    default: {
      const { event_type: type, timestamp: _, ...rest } = event;
      const level = levelOf(subject);
      return line("other", at, order, { level, source: subject, message: `${type} ${string(rest)}`, bytes, item });
    }
  }
}

/** Reasons that nothing can be loaded after, and those of this page. */
const GONE = ["retention", "reset"];
const UNASKED = ["filter", "link"];
const OLDER = "older";

function gapMessage({ dropped, by, reason }) {
  if (UNASKED.includes(reason)) return STRINGS.gap[reason];
  const what = dropped === null ? STRINGS.gap.unknown : STRINGS.gap.events(dropped, count(dropped));
  if (GONE.includes(reason)) return STRINGS.gap[reason](what, dropped);
  if (reason === OLDER) return STRINGS.gap.older(what, dropped);
  const parts = Object.entries(by).sort((a, b) => b[1] - a[1]);
  const detail = parts.map(([name, number]) => STRINGS.gap.part(count(number), name)).join(", ");
  return STRINGS.gap.passed(what, reason, detail);
}

/** Whether what is missing may still be had. @param {Line} given */
export function canLoad({ gap }) {
  return gap !== null && gap.from !== "" && !GONE.includes(gap.reason) && gap.state !== "loading";
}

/**
 * The line of a gap.
 * @param {Record<string, any>} message as the relay sends it; also with a `state`
 * @param {number} at UNIX milliseconds, NaN where it cannot be known
 * @param {number} [base] as for events
 * @returns {Line}
 */
export function gapLine(message, at, base = 0) {
  const { from = "", to = "", dropped = null, by, state = "", parts = [], ask } = message;
  const gap = { from, to, dropped, by: by ?? {}, reason: string(message.reason), state, parts, ask };
  const fault = state && state !== "loading" ? STRINGS.gap.unloaded(state) : "";
  return line("gap", at, base + readCursor(from).seq + 0.5, { label: STRINGS.line.gap, message: gapMessage(gap) + fault, gap });
}

/**
 * Two gaps with nothing shown between them, as one.
 * @param {Line} first
 * @param {Line} second
 * @returns {Line|null} null when they say different things
 */
export function joinGaps(first, second) {
  const [a, b] = [first.gap, second.gap];
  if (!a || !b || a.reason !== b.reason || a.state || b.state || a.ask !== b.ask) return null;
  const by = { ...a.by };
  for (const [name, number] of Object.entries(b.by)) by[name] = (by[name] ?? 0) + number;
  const dropped = a.dropped === null || b.dropped === null ? null : a.dropped + b.dropped;
  const parts = [...(a.parts.length ? a.parts : [first]), second];
  const joined = gapLine({ from: a.from, to: b.to, dropped, by, reason: b.reason, parts, ask: b.ask }, second.at);
  return { ...joined, order: second.order };
}

/**
 * A line of the page itself.
 * @param {string} message
 * @param {number} now UNIX milliseconds
 * @param {number} [order] what it stands behind
 * @returns {Line}
 */
export function noticeLine(message, now, order = 0) {
  return line("notice", now, order, { label: STRINGS.line.page, message });
}
