/**
 * What is known of each gateway: its status, since when, and its last 50 states.
 *
 * Invariants: an event changes a gateway only when its sequence is newer than what is known; a gateway that is
 * REMOVED, or missing from a snapshot that covers it, is forgotten; of each at most 50 states are kept.
 */

import { REMOVED, rank, readStatus, STATUSES } from "/assets/status.js";
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
 * @property {string} latency as text with its unit; empty when metadata has none
 * @property {{status: string, at: number}[]} history oldest first
 * @property {number} seq
 */

const text = (value) => (typeof value === "string" ? value : "");

/** What failed, from the metadata that monitors are known to send. */
function readFault(metadata) {
  const probe = text(metadata.probe) || text(metadata.failing_probe);
  const error = text(metadata.error) || text(metadata.reason) || text(metadata.detail);
  // The reason first: an address is long, and a tile cuts off what does not fit.
  return [error, probe].filter(Boolean).join(" · ");
}

function readLatency(metadata) {
  const millis = metadata.latency_ms;
  if (typeof millis !== "number" || !Number.isFinite(millis)) return "";
  return millis < 10 ? `${millis.toFixed(1)} ms` : `${Math.round(millis)} ms`;
}

export class Gateways {
  /** @type {Map<string, Gateway>} */ #known = new Map();
  #mentioned = new Set();

  /** Gateways that changed since `takeChanged`, or were forgotten. @type {Set<string>} */
  #changed = new Set();

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
    const metadata = event.metadata && typeof event.metadata === "object" ? event.metadata : {};
    const at = parseTime(event.timestamp, now);
    // A monitor that says the same again, as after its restart, has not changed the gateway.
    const same = known?.status === status;
    const history = known?.history ?? [];
    if (!same) history.push({ status, at });
    if (history.length > HISTORY) history.splice(0, history.length - HISTORY);
    const previous = readStatus(event.previous_status);
    this.#known.set(subject, {
      key: subject,
      id: text(event.gateway_id) || subject,
      type: text(event.gateway_type),
      group: text(metadata.group),
      status,
      previous: same ? known.previous : previous === status ? (known?.status ?? "") : previous,
      since: parseTime(metadata.since, same ? known.since : at),
      fault: readFault(metadata),
      latency: readLatency(metadata),
      history,
      seq,
    });
    return true;
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
    for (const gateway of this.#known.values()) gateway.seq = -1;
  }

  /** Keys that changed since the last call. @returns {Set<string>} */
  takeChanged() {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  /** All gateways, worst first, then by name; equal ones never swap. @returns {Gateway[]} */
  sorted() {
    return [...this.#known.values()].sort(
      (a, b) =>
        rank(a.status) - rank(b.status) ||
        a.id.localeCompare(b.id, "en", { numeric: true }) ||
        (a.key < b.key ? -1 : 1),
    );
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
