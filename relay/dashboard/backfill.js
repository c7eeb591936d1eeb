/**
 * Loads lines from the stream's history: the events of a gap, and the lines around a linked one.
 *
 * Invariants: every event is inserted once, at its position; what could not be loaded remains as a smaller gap; no
 * range is loaded twice at the same time.
 */

import { readPage, PAGE } from "/assets/pages.js";
import { canLoad, eventLine, gapLine, noticeLine } from "/assets/lines.js";
import { readCursor } from "/assets/cursor.js";
import { relayNow } from "/assets/relayclock.js";
import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

/** @typedef {import("/assets/lines.js").Line} Line */

/** Pages loaded per click; the rest of a larger gap takes another click. */
const PAGES = 5;

/** Lines loaded before and after a linked line. */
const CONTEXT_LINES = 200;

const EVERYTHING = { level: "DEBUG", subjects: [] };
const inOrder = (a, b) => a.order - b.order;
const isQuiet = ({ event }) => event.event_type === "system_health" && event.status === "HEALTHY";

export class Backfill {
  #logs;
  #changed;

  /** Offset of the sequences, after the stream was recreated. */
  base = 0;

  /**
   * @param {import("/assets/logs.js").Logs} logs
   * @param {() => void} changed called when the lines have changed
   */
  constructor(logs, changed) {
    this.#logs = logs;
    this.#changed = changed;
  }

  /** Load the events of a gap. @param {Line} line */
  async fill(line) {
    if (!canLoad(line)) return;
    let { gap, at } = line;
    // After widening a filter the newest events matter most; a gap is read from its start.
    const back = gap.reason === "filter";
    /** @type {Line[]} */ let old = [line, ...gap.parts];
    const update = (next, lines = []) => {
      const rest = next ? [gapLine({ ...next, parts: [] }, at, this.base)] : [];
      this.#logs.replace(old, [...rest, ...lines].sort(inOrder));
      old = rest;
      this.#changed();
    };
    update({ ...gap, state: "loading" });
    for (let page = 1; ; page += 1) {
      let loaded;
      try {
        const order = back ? "newest" : "oldest";
        loaded = await readPage({ cursor: gap.from, until: gap.to, order, limit: String(PAGE), ...gap.subscription });
      } catch (error) {
        update({ ...gap, state: error.message });
        return;
      }
      const lines = this.#lines(loaded);
      const dropped = gap.dropped === null ? null : Math.max(0, gap.dropped - lines.length);
      gap = { ...gap, [back ? "to" : "from"]: loaded.cursor, dropped, by: {} };
      const last = !loaded.more || page === PAGES;
      update(loaded.more ? { ...gap, state: last ? "" : "loading" } : null, lines);
      if (last) return;
    }
  }

  /**
   * Load the lines around a linked line.
   * @param {string} cursor of the linked line
   * @param {string} start cursor from which on lines arrive live
   * @returns {Promise<Line|null>} the line; null if it is not available, which the log reports
   */
  async loadAround(cursor, start) {
    const { seq } = readCursor(cursor);
    try {
      const around = { limit: String(CONTEXT_LINES), ...EVERYTHING };
      const before = await readPage({ ...around, until: cursor, order: "newest" });
      if (before.events.at(-1)?.seq !== seq) {
        this.#notice(STRINGS.gap.lineMissing);
        return null;
      }
      const after = await readPage({ ...around, cursor });
      const lines = [...this.#lines(before), ...this.#lines(after)];
      if (readCursor(after.cursor).seq < readCursor(start).seq) {
        const between = { from: after.cursor, to: start, reason: "link", subscription: EVERYTHING };
        lines.push(gapLine(between, NaN, this.base));
      }
      this.#logs.insert(lines);
      this.#changed();
      return this.#logs.find(this.base + seq) ?? null;
    } catch (error) {
      this.#notice(STRINGS.gap.lineFailed(error.message));
      return null;
    }
  }

  #notice(text) {
    this.#logs.insert([noticeLine(text, relayNow(), this.#logs.end + 0.1)]);
    this.#changed();
  }

  /** Convert a page to lines, leaving out events that are stored already, and adding the page's gap. */
  #lines({ events, gap }) {
    const now = relayNow();
    const lines = gap ? [gapLine(gap, NaN, this.base)] : [];
    for (const item of events) {
      if (isQuiet(item) || this.#logs.find(this.base + item.seq)) continue;
      const bytes = JSON.stringify(item).length;
      lines.push(eventLine(item, bytes, parseTime(item.event.timestamp, now), this.base));
    }
    return lines.sort(inOrder);
  }
}
