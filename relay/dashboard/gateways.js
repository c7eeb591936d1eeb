/**
 * Store of the gateways: status, since when, and the last 50 states of each.
 *
 * Invariants: only an event with a newer sequence changes a gateway; a gateway that is REMOVED, or missing from a
 * snapshot that covers it, is forgotten; at most 20 000 gateways are kept, and 50 states and 50 latencies of each, in
 * stream order and without duplicates, whether they were received or loaded from the history.
 */

import { REMOVED, rank, readStatus, reasonLabel, STATUSES } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

/** Number of gateways that are kept; those that have not changed for the longest time are dropped. */
const MAX_GATEWAYS = 20_000;

/** Number of states that a bar shows. */
export const HISTORY = 50;

/**
 * @typedef {object} Gateway
 * @property {string} key subject
 * @property {string} id
 * @property {string} type
 * @property {string} group empty if the metadata has none
 * @property {string} status
 * @property {string} previous previous status; empty if it is unknown
 * @property {number} since UNIX milliseconds
 * @property {string} fault error or reason, and the failing probe; empty if there is none
 * @property {[string, string][]} probes name and status of each probe
 * @property {number} latency milliseconds; NaN if the metadata has none
 * @property {boolean} flapping
 * @property {{until: number, reason: string, by: string}|null} silence alerts are suppressed until then
 * @property {State[]} history oldest first
 * @property {{seq: number, value: number}[]} latencies milliseconds, oldest first
 * @property {number} seq
 */

/**
 * @typedef {object} State status that a gateway entered
 * @property {number} seq
 * @property {string} status
 * @property {number} at UNIX milliseconds
 * @property {string} fault
 */

/** @typedef {"none"|"type"|"group"} GroupBy */

const text = (value) => (typeof value === "string" ? value : "");

const object = (value) => (value && typeof value === "object" ? value : {});

/** Read the status of each probe. @returns {[string, string][]} */
function readProbes(metadata) {
  return Object.entries(object(metadata.probes)).map(([name, status]) => [name, readStatus(status)]);
}

/**
 * Describe what failed, from the metadata of a monitor.
 * @param {Record<string, any>} metadata
 * @returns {string} empty if nothing failed
 */
export function readFault(metadata) {
  const failing = readProbes(metadata).filter(([, status]) => status === "UNHEALTHY" || status === "DEGRADED");
  const named = text(metadata.probe) || text(metadata.failing_probe);
  const probe = named || failing.map(([name]) => name).join(", ");
  const error = text(metadata.error) || reasonLabel(text(metadata.reason)) || text(metadata.detail);
  // The error comes first: an address is long, and a tile truncates the text.
  return [error, probe].filter(Boolean).join(" · ");
}

/** Read the latency. @param {Record<string, any>} metadata @returns {number} milliseconds, or NaN */
export function readLatency(metadata) {
  const millis = metadata.latency_ms;
  return typeof millis === "number" && Number.isFinite(millis) ? millis : NaN;
}

function readSilence(metadata) {
  if (!metadata.silenced) return null;
  const { until, reason, by } = object(metadata.silenced);
  return { until: parseTime(until, Infinity), reason: text(reason), by: text(by) };
}

/** Format a latency with its unit. @param {number} millis @returns {string} empty for NaN */
export function latencyText(millis) {
  if (Number.isNaN(millis)) return "";
  return millis < 10 ? STRINGS.gateways.millis(millis.toFixed(1)) : STRINGS.gateways.millis(Math.round(millis));
}

/**
 * Merge two lists by sequence, without duplicates.
 * @template {{seq: number}} T
 * @param {T[]} known @param {T[]} more @returns {T[]}
 */
function merged(known, more) {
  const seen = new Set(known.map(({ seq }) => seq));
  return [...known, ...more.filter(({ seq }) => !seen.has(seq))].sort((a, b) => a.seq - b.seq);
}

const names = new Intl.Collator("en", { numeric: true });

export class Gateways {
  /** @type {Map<string, Gateway>} */ #known = new Map();
  #mentioned = new Set();

  /** Number of gateways that were dropped, because there are too many, in this session. */
  dropped = 0;

  /** Keys of gateways that changed or were forgotten since the last `takeChanged`. @type {Set<string>} */
  #changed = new Set();

  /** Rank of each gateway by name; null after one was added. @type {Map<string, number>|null} */
  #order = null;

  get size() {
    return this.#known.size;
  }

  /** @param {string} key @returns {Gateway|undefined} */
  get(key) {
    return this.#known.get(key);
  }

  /**
   * Apply a `gateway_status_change` event.
   * @param {{subject: string, seq: number, event: Record<string, any>}} item
   * @param {number} now UNIX milliseconds, for an event without a timestamp
   * @returns {boolean} whether it was newer than the known status
   */
  apply(item, now) {
    const { subject, seq, event } = item;
    const known = this.#known.get(subject);
    if (known && seq <= known.seq) return false;
    this.#changed.add(subject);
    const status = readStatus(event.current_status);
    if (status === REMOVED) {
      this.#known.delete(subject);
      return true;
    }
    const metadata = object(event.metadata);
    const at = parseTime(event.timestamp, now);
    // A repeated status, e.g. after a restart of the monitor, is not a change.
    const same = known?.status === status;
    const history = known?.history ?? [];
    const fault = readFault(metadata);
    if (!same) history.push({ seq, status, at, fault });
    if (history.length > HISTORY) history.splice(0, history.length - HISTORY);
    const latency = readLatency(metadata);
    const latencies = known?.latencies ?? [];
    if (!Number.isNaN(latency)) latencies.push({ seq, value: latency });
    if (latencies.length > HISTORY) latencies.shift();
    const previous = readStatus(event.previous_status);
    if (!known) this.#order = null;
    this.#known.delete(subject); // moves it to the end: a map keeps the order of insertion
    this.#known.set(subject, {
      key: subject,
      id: text(event.gateway_id) || subject,
      type: text(event.gateway_type),
      group: text(metadata.group),
      status,
      previous: same ? known.previous : previous === status ? (known?.status ?? "") : previous,
      since: parseTime(metadata.since, same ? known.since : at),
      fault,
      probes: readProbes(metadata),
      latency,
      flapping: metadata.flapping === true,
      silence: readSilence(metadata),
      history,
      latencies,
      seq,
    });
    if (this.#known.size > MAX_GATEWAYS) this.#drop();
    return true;
  }

  /** Drop the gateway that has not changed for the longest time. */
  #drop() {
    const [oldest] = this.#known.keys();
    this.#known.delete(oldest);
    this.#changed.add(oldest);
    this.dropped += 1;
  }

  /**
   * Add states that were loaded from a gateway's history.
   * @param {string} key
   * @param {{seq: number, event: Record<string, any>}[]} items in stream order
   */
  addHistory(key, items) {
    const known = this.#known.get(key);
    if (!known) return;
    const past = items.filter((item) => item.seq < known.seq);
    const states = past.map(({ seq, event }) => ({
      seq,
      status: readStatus(event.current_status),
      at: parseTime(event.timestamp, NaN),
      fault: readFault(object(event.metadata)),
    }));
    const all = merged(known.history, states);
    known.history = all.filter((state, i) => state.status !== all[i - 1]?.status).slice(-HISTORY);
    const values = past.map(({ seq, event }) => ({ seq, value: readLatency(object(event.metadata)) }));
    const measured = values.filter(({ value }) => !Number.isNaN(value));
    known.latencies = merged(known.latencies, measured).slice(-HISTORY);
    this.#changed.add(key);
  }

  /** Start a session: an unfinished snapshot of the previous session is discarded. */
  startSession() {
    this.#mentioned.clear();
    this.dropped = 0;
  }

  /**
   * Apply one message of a snapshot.
   * @param {{subject: string, seq: number, event: Record<string, any>}[]} items
   * @param {boolean} done whether it is the last message
   * @param {number} start sequence up to which the snapshot is complete
   * @param {number} now UNIX milliseconds
   */
  snapshot(items, done, start, now) {
    for (const item of items) {
      if (item.event.event_type !== "gateway_status_change") continue;
      this.#mentioned.add(item.subject);
      this.apply(item, now);
    }
    if (!done) return;
    for (const [key, gateway] of this.#known) {
      if (gateway.seq > start || this.#mentioned.has(key)) continue;
      this.#known.delete(key);
      this.#changed.add(key);
    }
    this.#mentioned.clear();
  }

  /** Reset all sequences, because the stream was recreated: every new event is newer. */
  forgetSequences() {
    for (const gateway of this.#known.values()) {
      gateway.seq = -1;
      // Distinct, and lower than any sequence of the new stream.
      gateway.history.forEach((state, i) => (state.seq = i - HISTORY));
      gateway.latencies.forEach((point, i) => (point.seq = i - HISTORY));
    }
  }

  /** Return the keys that changed since the last call. @returns {Set<string>} */
  takeChanged() {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  /**
   * Return all gateways, grouped; groups and gateways are sorted by severity, then by name, which keeps their order
   * stable. Silenced gateways come last among those of the same status.
   * @param {GroupBy} by
   * @returns {{name: string, members: Gateway[]}[]} a single group without a name if they are not grouped
   */
  grouped(by) {
    const order = this.#byName();
    const all = [...this.#known.values()].sort(
      (a, b) =>
        rank(a.status) - rank(b.status) ||
        Number(a.silence !== null) - Number(b.silence !== null) ||
        order.get(a.key) - order.get(b.key),
    );
    if (by === "none") return [{ name: "", members: all }];
    const groups = new Map();
    for (const gateway of all) {
      if (!groups.has(gateway[by])) groups.set(gateway[by], []);
      groups.get(gateway[by]).push(gateway);
    }
    return [...groups]
      .map(([name, members]) => ({ name: name || STRINGS.gateways.without[by], members }))
      .sort((a, b) => rank(a.members[0].status) - rank(b.members[0].status) || names.compare(a.name, b.name));
  }

  /** Rank all gateways by name; cached, because a thousand gateways are sorted in every frame of a burst. */
  #byName() {
    const all = [...this.#known.values()];
    this.#order ??= new Map(
      all.sort((a, b) => names.compare(a.id, b.id) || (a.key < b.key ? -1 : 1)).map(({ key }, i) => [key, i]),
    );
    return this.#order;
  }

  /** Count the gateways of each status, worst first, leaving out statuses without gateways. */
  counts() {
    const counts = new Map(STATUSES.map((status) => [status, 0]));
    for (const { status } of this.#known.values()) counts.set(status, counts.get(status) + 1);
    return [...counts].filter(([, number]) => number > 0).map(([status, number]) => ({ status, number }));
  }

  /** Number of gateways that are down. */
  get down() {
    let down = 0;
    for (const { status } of this.#known.values()) if (status === "UNHEALTHY") down += 1;
    return down;
  }
}
