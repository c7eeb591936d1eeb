/**
 * Store of the log's lines, and which of them are shown.
 *
 * Invariants:
 * 1. Lines are in stream order, whenever they arrived, and each event is stored once.
 * 2. At most 50 000 lines and 64 MB of events are kept, and the oldest are dropped first; lines that the user loads have
 *    a limit of their own, otherwise they would evict themselves.
 * 3. A filter hides lines but drops none: a wider filter shows all kept lines again.
 * 4. While paused, the lines shown do not change; new lines are queued up to the same limit, and dropped ones counted.
 * 5. Adjacent gaps are shown as one.
 */

import { joinGaps, noticeLine } from "/assets/lines.js";
import { STRINGS } from "/assets/strings.js";
import { count } from "/assets/times.js";

/** @typedef {import("/assets/lines.js").Line} Line */

export const MAX_LINES = 50_000;
const MAX_LOADED = 10_000;
const MAX_BYTES = 64 * 1024 * 1024;

/**
 * Return the index of a position, or the index where it would be inserted.
 * @param {Line[]} lines in order
 * @param {number} order
 */
export function indexOfOrder(lines, order) {
  let [low, high] = [0, lines.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lines[middle].order < order) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Merge two lists of lines; an event in both occurs once. */
function merge(first, second) {
  const all = [];
  let [i, j] = [0, 0];
  while (i < first.length || j < second.length) {
    const next = j >= second.length || first[i]?.order <= second[j].order ? first[i++] : second[j++];
    const last = all[all.length - 1];
    if (!last || !next.item || !last.item || last.order !== next.order) all.push(next);
  }
  return all;
}

const totalBytes = (lines) => lines.reduce((sum, line) => sum + line.bytes, 0);
const countEvents = (lines) => lines.reduce((sum, line) => sum + (line.item ? 1 : 0), 0);

export class Logs {
  /** @type {Line[]} */ #lines = [];
  /** @type {Line[]} */ #waiting = [];
  #dropped = 0;
  #bytes = 0;
  #extra = 0;
  #passes = (_line) => true;

  /** Lines that match the filter, oldest first. @type {Line[]} */
  shown = [];

  /** Number of events kept. */
  total = 0;

  /** Number of events shown. */
  matching = 0;

  /** Set while the log is paused. */
  paused = false;

  /** Number of lines that arrived since the pause. */
  get waiting() {
    return this.#waiting.length + this.#dropped;
  }

  /** Position of the last line, 0 if there is none. */
  get end() {
    return (this.#waiting.at(-1) ?? this.#lines.at(-1))?.order ?? 0;
  }

  /** Find the line of an event. @param {number} order @returns {Line|undefined} */
  find(order) {
    const line = this.#lines[indexOfOrder(this.#lines, order)];
    return line?.order === order && line.item ? line : undefined;
  }

  /** Add lines that arrived. @param {Line[]} lines in order */
  add(lines) {
    if (lines.length === 0) return;
    if (!this.paused) {
      this.#insert(lines);
      return;
    }
    this.#waiting.push(...lines);
    const out = Math.max(0, this.#waiting.length - MAX_LINES);
    if (out > 0) this.#waiting.splice(0, out);
    this.#dropped += out;
  }

  /** Insert lines that the user loaded, also while paused. @param {Line[]} lines in order */
  insert(lines) {
    if (lines.length === 0) return;
    this.#extra = Math.min(MAX_LOADED, this.#extra + lines.length);
    this.#insert(lines);
  }

  /** Replace lines by others that the user loaded. @param {Line[]} old @param {Line[]} lines in order */
  replace(old, lines) {
    const out = new Set(old);
    this.#lines = this.#lines.filter((line) => !out.has(line));
    this.#waiting = this.#waiting.filter((line) => !out.has(line));
    this.#rebuild();
    this.insert(lines);
  }

  /** Drop the extra limit for loaded lines: the user is back at the newest line. */
  releaseLoaded() {
    if (this.#extra === 0) return;
    this.#extra = 0;
    this.#trim();
  }

  /** @param {boolean} paused */
  pause(paused) {
    if (paused === this.paused) return;
    this.paused = paused;
    if (paused) return;
    const lines = this.#waiting;
    this.#waiting = [];
    if (this.#dropped > 0) {
      const { at, order } = lines[0];
      lines.unshift(noticeLine(STRINGS.log.dropped(this.#dropped, count(this.#dropped)), at, order - 0.25));
      this.#dropped = 0;
    }
    this.add(lines);
  }

  /** Set the filter. @param {(line: Line) => boolean} passes predicate for lines of events */
  filter(passes) {
    this.#passes = passes;
    this.#rebuild();
  }

  #insert(lines) {
    if (lines[0].order > (this.#lines.at(-1)?.order ?? -1)) {
      for (const line of lines) {
        this.#lines.push(line);
        this.#bytes += line.bytes;
        if (line.item) this.total += 1;
        this.#show(line);
      }
    } else {
      this.#lines = merge(this.#lines, lines);
      this.#rebuild();
    }
    this.#trim();
  }

  #rebuild() {
    this.#bytes = totalBytes(this.#lines);
    this.total = countEvents(this.#lines);
    this.shown = [];
    this.matching = 0;
    for (const line of this.#lines) this.#show(line);
  }

  /** Show a line if it passes; gaps and notices always do, because their content cannot be matched. */
  #show(line) {
    if (line.item && !this.#passes(line)) return;
    const last = this.shown.at(-1);
    const joined = last && joinGaps(last, line);
    if (joined) {
      this.shown[this.shown.length - 1] = joined;
      return;
    }
    this.shown.push(line);
    if (line.item) this.matching += 1;
  }

  #trim() {
    let out = Math.max(0, this.#lines.length - MAX_LINES - this.#extra);
    let bytes = totalBytes(this.#lines.slice(0, out));
    while (this.#bytes - bytes > MAX_BYTES && out < this.#lines.length - 1) bytes += this.#lines[out++].bytes;
    if (out === 0) return;
    this.#bytes -= bytes;
    this.total -= countEvents(this.#lines.splice(0, out));
    const removed = this.shown.splice(0, indexOfOrder(this.shown, this.#lines[0].order));
    this.matching -= countEvents(removed);
  }
}
