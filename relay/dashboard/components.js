/**
 * Components that report their own health (monitor, shipper, ...), as a strip.
 *
 * Invariants: the latest report of each subject is shown; a component that is REMOVED, or missing from a snapshot
 * that covers it, is removed; components are sorted by name, so that they do not move. At most 500 are kept.
 */

import { arrange, element, setAttribute, setText } from "/assets/dom.js";
import { REMOVED, readStatus, statusMark } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { duration, fullTime, parseTime } from "/assets/times.js";

/** Number of components that are kept; those that have not reported for the longest time are dropped. */
const MAX_COMPONENTS = 500;

export class Components {
  /** Number of components that were dropped, because there are too many, in this session. */
  dropped = 0;

  /**
   * @type {Map<string, {seq: number, status: string, name: string, at: number,
   *   mark: ReturnType<typeof statusMark>, age: HTMLElement, root: HTMLElement}>}
   */
  #known = new Map();
  #mentioned = new Set();
  #panel;
  #list;

  /** @param {HTMLElement} panel hidden while the list is empty @param {HTMLElement} list */
  constructor(panel, list) {
    this.#panel = panel;
    this.#list = list;
  }

  /**
   * Apply a `system_health` event.
   * @param {{subject: string, seq: number, event: Record<string, any>}} item
   * @param {number} now UNIX milliseconds
   * @returns {boolean} whether the status of a known component changed
   */
  apply(item, now) {
    const before = this.#known.get(item.subject);
    const changed = this.#take(item, now);
    if (before !== this.#known.get(item.subject)) this.#arrange();
    return changed;
  }

  #take(item, now) {
    const { subject, seq, event } = item;
    const known = this.#known.get(subject);
    if (known && seq <= known.seq) return false;
    const status = readStatus(event.status);
    const changed = known !== undefined && known.status !== status;
    if (status === REMOVED) {
      this.#known.delete(subject);
    } else {
      const entry = known ?? this.#build(subject, event);
      this.#known.delete(subject); // moves it to the end: a map keeps the order of insertion
      this.#known.set(subject, entry);
      if (this.#known.size > MAX_COMPONENTS) {
        this.#known.delete(this.#known.keys().next().value);
        this.dropped += 1;
      }
      entry.seq = seq;
      entry.status = status;
      entry.at = parseTime(event.timestamp, now);
      entry.mark.set(status);
      setAttribute(entry.root, "data-status", status);
      setAttribute(entry.root, "title", STRINGS.components.reported(fullTime(entry.at)));
      setText(entry.age, duration(now - entry.at));
    }
    return changed;
  }

  /** Start a session: an unfinished snapshot of the previous session is discarded. */
  startSession() {
    this.#mentioned.clear();
    this.dropped = 0;
  }

  /** Apply one message of a snapshot; see Gateways.snapshot. */
  snapshot(items, done, start, now) {
    for (const item of items) {
      if (item.event.event_type !== "system_health") continue;
      this.#mentioned.add(item.subject);
      this.#take(item, now); // arranged once, below
    }
    if (!done) return;
    for (const [key, entry] of this.#known) {
      if (entry.seq <= start && !this.#mentioned.has(key)) this.#known.delete(key);
    }
    this.#mentioned.clear();
    this.#arrange();
  }

  /** Reset all sequences, because the stream was recreated: every new report is newer. */
  forgetSequences() {
    for (const entry of this.#known.values()) entry.seq = -1;
  }

  /** Update the ages. @param {number} now */
  tick(now) {
    for (const entry of this.#known.values()) setText(entry.age, duration(now - entry.at));
  }

  #build(subject, event) {
    const name = [event.component, event.instance].filter((part) => typeof part === "string").join(" ");
    const mark = statusMark();
    const age = element("span", "component-age");
    const root = element("li", "component", element("span", "component-name", name || subject), mark.root, age);
    return { seq: -1, status: "", name: name || subject, at: 0, mark, age, root };
  }

  #arrange() {
    const entries = [...this.#known.values()].sort((a, b) => a.name.localeCompare(b.name, "en"));
    arrange(
      this.#list,
      entries.map(({ root }) => root),
    );
    this.#panel.hidden = entries.length === 0;
  }
}
