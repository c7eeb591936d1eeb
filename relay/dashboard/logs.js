/**
 * The lines that are kept, and which of them are shown.
 *
 * Invariants:
 * 1. Lines stand in the order of the stream, whenever they came, and each event once.
 * 2. At most 50 000 lines and 64 MB of events are kept, the oldest go first; what the reader loads has room of
 *    its own, or it would push itself out.
 * 3. Filtering hides, it never throws away: loosening a filter brings everything kept back.
 * 4. While paused what is shown stays as it is; what arrives waits, bounded alike, and what does not fit is told.
 * 5. Gaps with nothing shown between them are shown as one.
 */

import { joinGaps, noticeLine } from "/assets/lines.js";
import { STRINGS } from "/assets/strings.js";
import { count } from "/assets/times.js";

/** @typedef {import("/assets/lines.js").Line} Line */

export const MAX_LINES = 50_000;
const MAX_LOADED = 10_000;
const MAX_BYTES = 64 * 1024 * 1024;

/**
 * Where a place is, or would be.
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

/** Two rows of lines as one; an event that is in both comes once. */
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

const weigh = (lines) => lines.reduce((sum, line) => sum + line.bytes, 0);
const countEvents = (lines) => lines.reduce((sum, line) => sum + (line.item ? 1 : 0), 0);

export class Logs {
  /** @type {Line[]} */ #lines = [];
  /** @type {Line[]} */ #waiting = [];
  #lost = 0;
  #bytes = 0;
  #extra = 0;
  #passes = (_line) => true;

  /** Lines that pass the filter, oldest first. @type {Line[]} */
  shown = [];

  /** Events kept, whether shown or not. */
  total = 0;

  /** Events shown. */
  matching = 0;

  /** True while what is shown stands still. */
  paused = false;

  /** Lines that arrived since the pause. */
  get waiting() {
    return this.#waiting.length + this.#lost;
  }

  /** The place of the last line, 0 without any. */
  get end() {
    return (this.#waiting.at(-1) ?? this.#lines.at(-1))?.order ?? 0;
  }

  /** Whether an event is kept. @param {number} order @returns {Line|undefined} */
  find(order) {
    const line = this.#lines[indexOfOrder(this.#lines, order)];
    return line?.order === order && line.item ? line : undefined;
  }

  /** Take in lines that arrived. @param {Line[]} lines in order */
  add(lines) {
    if (lines.length === 0) return;
    if (!this.paused) {
      this.#take(lines);
      return;
    }
    this.#waiting.push(...lines);
    const out = Math.max(0, this.#waiting.length - MAX_LINES);
    if (out > 0) this.#waiting.splice(0, out);
    this.#lost += out;
  }

  /** Put lines in that the reader asked for, also while paused. @param {Line[]} lines in order */
  insert(lines) {
    if (lines.length === 0) return;
    this.#extra = Math.min(MAX_LOADED, this.#extra + lines.length);
    this.#take(lines);
  }

  /** Put lines in the place of others, as the reader asked for. @param {Line[]} old @param {Line[]} lines in order */
  replace(old, lines) {
    const out = new Set(old);
    this.#lines = this.#lines.filter((line) => !out.has(line));
    this.#waiting = this.#waiting.filter((line) => !out.has(line));
    this.#rebuild();
    this.insert(lines);
  }

  /** Give the room back that loaded lines had: the reader is at the newest again. */
  settle() {
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
    if (this.#lost > 0) {
      const { at, order } = lines[0];
      lines.unshift(noticeLine(STRINGS.log.unfit(count(this.#lost)), at, order - 0.25));
      this.#lost = 0;
    }
    this.add(lines);
  }

  /** Narrow or widen what is shown. @param {(line: Line) => boolean} passes for lines that are events */
  filter(passes) {
    this.#passes = passes;
    this.#rebuild();
  }

  #take(lines) {
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
    this.#bytes = weigh(this.#lines);
    this.total = countEvents(this.#lines);
    this.shown = [];
    this.matching = 0;
    for (const line of this.#lines) this.#show(line);
  }

  /** Gaps and notices always pass: they speak of what cannot be filtered. */
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
    let bytes = weigh(this.#lines.slice(0, out));
    while (this.#bytes - bytes > MAX_BYTES && out < this.#lines.length - 1) bytes += this.#lines[out++].bytes;
    if (out === 0) return;
    this.#bytes -= bytes;
    this.total -= countEvents(this.#lines.splice(0, out));
    const gone = this.shown.splice(0, indexOfOrder(this.shown, this.#lines[0].order));
    this.matching -= countEvents(gone);
  }
}
