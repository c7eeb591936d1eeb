/**
 * What the log gets from the stream's history: what a gap left out, and the place that an address names.
 *
 * Invariants: every event is put in its place by its sequence, once; what could not be loaded still stands there
 * as a gap, smaller by what was; nothing is loaded twice at a time.
 */

import { readPage, PAGE } from "/assets/pages.js";
import { canLoad, eventLine, gapLine, noticeLine } from "/assets/lines.js";
import { readCursor } from "/assets/cursor.js";
import { present } from "/assets/present.js";
import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

/** @typedef {import("/assets/lines.js").Line} Line */

/** Pages that are read at once; the rest of a larger gap is one more press away. */
const PAGES = 5;

/** Lines before and behind the one that an address names. */
const AROUND = 200;

const EVERYTHING = { level: "DEBUG", subjects: [] };
const inOrder = (a, b) => a.order - b.order;
const isQuiet = ({ event }) => event.event_type === "system_health" && event.status === "HEALTHY";

export class Loads {
  #logs;
  #changed;

  /** What sequences of this stream count from. */
  base = 0;

  /**
   * @param {import("/assets/logs.js").Logs} logs
   * @param {() => void} changed called when there is something else to show
   */
  constructor(logs, changed) {
    this.#logs = logs;
    this.#changed = changed;
  }

  /** Load what a gap left out. @param {Line} line */
  async fill(line) {
    if (!canLoad(line)) return;
    let { gap, at } = line;
    // Whoever widens a filter looks at what is newest; whoever loads a gap reads on from its beginning.
    const back = gap.reason === "filter";
    /** @type {Line[]} */ let old = [line, ...gap.parts];
    const become = (next, lines = []) => {
      const rest = next ? [gapLine({ ...next, parts: [] }, at, this.base)] : [];
      this.#logs.replace(old, [...rest, ...lines].sort(inOrder));
      old = rest;
      this.#changed();
    };
    become({ ...gap, state: "loading" });
    for (let page = 1; ; page += 1) {
      let found;
      try {
        const order = back ? "newest" : "oldest";
        found = await readPage({ cursor: gap.from, until: gap.to, order, limit: String(PAGE), ...gap.ask });
      } catch (error) {
        become({ ...gap, state: error.message });
        return;
      }
      const lines = this.#lines(found);
      const dropped = gap.dropped === null ? null : Math.max(0, gap.dropped - lines.length);
      gap = { ...gap, [back ? "to" : "from"]: found.cursor, dropped, by: {} };
      const last = !found.more || page === PAGES;
      become(found.more ? { ...gap, state: last ? "" : "loading" } : null, lines);
      if (last) return;
    }
  }

  /**
   * Load the place that an address names.
   * @param {string} cursor of its line
   * @param {string} start where that which arrives by itself begins
   * @returns {Promise<Line|null>} the line; null when it is not to be had, which is said in the log
   */
  async place(cursor, start) {
    const { seq } = readCursor(cursor);
    try {
      const around = { limit: String(AROUND), ...EVERYTHING };
      const before = await readPage({ ...around, until: cursor, order: "newest" });
      if (before.events.at(-1)?.seq !== seq) {
        this.#say(STRINGS.gap.lineGone);
        return null;
      }
      const behind = await readPage({ ...around, cursor });
      const lines = [...this.#lines(before), ...this.#lines(behind)];
      if (readCursor(behind.cursor).seq < readCursor(start).seq) {
        const between = { from: behind.cursor, to: start, reason: "link", ask: EVERYTHING };
        lines.push(gapLine(between, NaN, this.base));
      }
      this.#logs.insert(lines);
      this.#changed();
      return this.#logs.find(this.base + seq) ?? null;
    } catch (error) {
      this.#say(STRINGS.gap.lineUnread(error.message));
      return null;
    }
  }

  #say(text) {
    this.#logs.insert([noticeLine(text, present(), this.#logs.end + 0.1)]);
    this.#changed();
  }

  /** Lines of a page that are not there yet, and what the stream itself has let go of. */
  #lines({ events, gap }) {
    const now = present();
    const lines = gap ? [gapLine(gap, NaN, this.base)] : [];
    for (const item of events) {
      if (isQuiet(item) || this.#logs.find(this.base + item.seq)) continue;
      const bytes = JSON.stringify(item).length;
      lines.push(eventLine(item, bytes, parseTime(item.event.timestamp, now), this.base));
    }
    return lines.sort(inOrder);
  }
}
