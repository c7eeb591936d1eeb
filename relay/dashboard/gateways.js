/**
 * What is known of each gateway: its status, since when, and its last 50 states.
 *
 * Invariants: an event changes a gateway only when its sequence is newer than what is known; a gateway that is
 * REMOVED, or missing from a snapshot that covers it, is forgotten; of each at most 50 states and 50 latencies are
 * kept, in stream order and each once, whether they came on the feed or were looked up.
 */

import { REMOVED, rank, readStatus, STATUSES } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

/** States that a bar shows. */
export const HISTORY = 50;

/**
 * @typedef {object} Gateway
 * @property {string} key its subject
 * @property {string} id
 * @property {string} type
 * @property {string} group empty when metadata names none
 * @property {string} status
 * @property {string} previous the status before; empty when it is not known
 * @property {number} since UNIX milliseconds
 * @property {string} fault the failing probe and its error; empty when there is none
 * @property {[string, string][]} probes each probe and its status
 * @property {number} latency milliseconds; NaN when metadata has none
 * @property {boolean} flapping
 * @property {{until: number, why: string, by: string}|null} silence alerts are not wanted until then
 * @property {State[]} history oldest first
 * @property {{seq: number, value: number}[]} latencies milliseconds, oldest first
 * @property {number} seq
 */

/**
 * @typedef {object} State a status that was entered
 * @property {number} seq
 * @property {string} status
 * @property {number} at UNIX milliseconds
 * @property {string} fault
 */

/** @typedef {"none"|"type"|"group"} By what gateways are gathered by */

const text = (value) => (typeof value === "string" ? value : "");

const object = (value) => (value && typeof value === "object" ? value : {});

/** Each probe's status, as the monitor tells it. @returns {[string, string][]} */
function readProbes(metadata) {
  return Object.entries(object(metadata.probes)).map(([name, status]) => [name, readStatus(status)]);
}

/**
 * What failed, from the metadata that monitors are known to send.
 * @param {Record<string, any>} metadata
 * @returns {string} empty when nothing did
 */
export function readFault(metadata) {
  const failing = readProbes(metadata).filter(([, status]) => status === "UNHEALTHY" || status === "DEGRADED");
  const named = text(metadata.probe) || text(metadata.failing_probe);
  const probe = named || failing.map(([name]) => name).join(", ");
  const error = text(metadata.error) || text(metadata.reason) || text(metadata.detail);
  // The reason first: an address is long, and a tile cuts off what does not fit.
  return [error, probe].filter(Boolean).join(" · ");
}

/** @param {Record<string, any>} metadata @returns {number} milliseconds, or NaN */
export function readLatency(metadata) {
  const millis = metadata.latency_ms;
  return typeof millis === "number" && Number.isFinite(millis) ? millis : NaN;
}

function readSilence(metadata) {
  if (!metadata.silenced) return null;
  const { until, reason, by } = object(metadata.silenced);
  return { until: parseTime(until, Infinity), why: text(reason), by: text(by) };
}

/** @param {number} millis @returns {string} with its unit; empty for NaN */
export function latencyText(millis) {
  if (Number.isNaN(millis)) return "";
  return millis < 10 ? STRINGS.gateways.millis(millis.toFixed(1)) : STRINGS.gateways.millis(Math.round(millis));
}

/**
 * Put two rows of things that have a sequence together, each once.
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

  /** Gateways that changed since `takeChanged`, or were forgotten. @type {Set<string>} */
  #changed = new Set();

  /** Place of each by its name; null when one came. @type {Map<string, number>|null} */
  #order = null;

  get size() {
    return this.#known.size;
  }

  /** @param {string} key @returns {Gateway|undefined} */
  get(key) {
    return this.#known.get(key);
  }

  /**
   * Take in one `gateway_status_change`.
   * @param {{subject: string, seq: number, event: Record<string, any>}} item
   * @param {number} now UNIX milliseconds, for an event without a time
   * @returns {boolean} true when it was newer than what is known
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
    // A monitor that says the same again, as after its restart, has not changed the gateway.
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
    return true;
  }

  /**
   * Take in what was looked up of a gateway's past.
   * @param {string} key
   * @param {{seq: number, event: Record<string, any>}[]} items in stream order
   */
  remember(key, items) {
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

  /** A session starts: what a snapshot before it left unfinished does not count. */
  begin() {
    this.#mentioned.clear();
  }

  /**
   * Take in a frame of a snapshot.
   * @param {{subject: string, seq: number, event: Record<string, any>}[]} items
   * @param {boolean} done it was the last frame
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

  /** The stream is another one: whatever it says is newer, and what its snapshot leaves out is gone. */
  forgetSequences() {
    for (const gateway of this.#known.values()) {
      gateway.seq = -1;
      // Apart, and before whatever comes.
      gateway.history.forEach((state, i) => (state.seq = i - HISTORY));
      gateway.latencies.forEach((point, i) => (point.seq = i - HISTORY));
    }
  }

  /** Keys that changed since the last call. @returns {Set<string>} */
  takeChanged() {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  /**
   * All gateways, gathered; groups and gateways worst first, then by name; equal ones never swap. A gateway whose
   * alerts are not wanted comes behind those of its status.
   * @param {By} by
   * @returns {{name: string, members: Gateway[]}[]} one without a name when they are not gathered
   */
  gathered(by) {
    const order = this.#byName();
    const all = [...this.#known.values()].sort(
      (a, b) =>
        rank(a.status) - rank(b.status) ||
        Number(a.silence !== null) - Number(b.silence !== null) ||
        order.get(a.key) - order.get(b.key),
    );
    if (by === "none") return [{ name: "", members: all }];
    const groups = new Map();
    for (const one of all) {
      if (!groups.has(one[by])) groups.set(one[by], []);
      groups.get(one[by]).push(one);
    }
    return [...groups]
      .map(([name, members]) => ({ name: name || STRINGS.gateways.without[by], members }))
      .sort((a, b) => rank(a.members[0].status) - rank(b.members[0].status) || names.compare(a.name, b.name));
  }

  /** Comparing names is dear, and a thousand gateways are sorted in every frame of a burst. */
  #byName() {
    const all = [...this.#known.values()];
    this.#order ??= new Map(
      all.sort((a, b) => names.compare(a.id, b.id) || (a.key < b.key ? -1 : 1)).map(({ key }, i) => [key, i]),
    );
    return this.#order;
  }

  /** How many gateways have each status, worst first, without the statuses that none has. */
  counts() {
    const counts = new Map(STATUSES.map((status) => [status, 0]));
    for (const { status } of this.#known.values()) counts.set(status, counts.get(status) + 1);
    return [...counts].filter(([, number]) => number > 0).map(([status, number]) => ({ status, number }));
  }

  /** Gateways that are down. */
  get down() {
    let down = 0;
    for (const { status } of this.#known.values()) if (status === "UNHEALTHY") down += 1;
    return down;
  }
}
