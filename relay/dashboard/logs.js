/**
 * The lines that are kept, and which of them are shown.
 *
 * Invariants:
 * 1. At most 5 000 lines and 64 MB of events are kept; the oldest go first.
 * 2. Filtering hides, it never throws away: loosening a filter brings everything kept back.
 * 3. While paused what is shown stays as it is; what arrives waits, bounded alike, and what does not fit is told.
 * 4. Gaps with nothing shown between them are shown as one.
 */

import { joinGaps, LEVELS, noticeLine } from "/assets/lines.js";
import { count } from "/assets/times.js";

/** @typedef {import("/assets/lines.js").Line} Line */

export const MAX_LINES = 5_000;
const MAX_BYTES = 64 * 1024 * 1024;

/** Lines in order, the oldest leaving when there are too many. */
class Kept {
  /** @type {Line[]} */ lines = [];

  /** Number of the first line; the next ones count on from it. */
  first = 0;
  #bytes = 0;

  /** @param {Line[]} more @returns {number} how many left */
  add(more) {
    for (const line of more) {
      this.lines.push(line);
      this.#bytes += line.bytes;
    }
    let out = Math.max(0, this.lines.length - MAX_LINES);
    for (let i = 0; i < out; i += 1) this.#bytes -= this.lines[i].bytes;
    while (this.#bytes > MAX_BYTES && out < this.lines.length - 1) {
      this.#bytes -= this.lines[out].bytes;
      out += 1;
    }
    if (out > 0) this.lines.splice(0, out);
    this.first += out;
    return out;
  }

  clear() {
    const lines = this.lines;
    this.lines = [];
    this.#bytes = 0;
    return lines;
  }
}

export class Logs {
  #kept = new Kept();
  #waiting = new Kept();
  #lost = 0;
  #leastLevel = 0;
  /** @type {string[]} */ #words = [];

  /** Lines that pass the filter, oldest first. @type {Line[]} */
  shown = [];

  /** True while what is shown stands still. */
  paused = false;

  /** Number of the kept line that each shown line ends with. @type {number[]} */
  #orders = [];
  #trimmed = 0;

  /** Lines kept, whether shown or not. */
  get total() {
    return this.#kept.lines.length;
  }

  /** Lines that arrived since the pause. */
  get waiting() {
    return this.#waiting.lines.length + this.#lost;
  }

  /**
   * Take in lines.
   * @param {Line[]} lines in order
   */
  add(lines) {
    if (this.paused) {
      this.#lost += this.#waiting.add(lines);
      return;
    }
    const out = this.#kept.add(lines);
    const { first, lines: kept } = this.#kept;
    const from = first + kept.length - lines.length;
    lines.forEach((line, i) => this.#show(line, from + i));
    if (out > 0) this.#trim();
  }

  /** @param {boolean} paused */
  pause(paused) {
    if (paused === this.paused) return;
    this.paused = paused;
    if (paused) return;
    const lines = this.#waiting.clear();
    if (this.#lost > 0) {
      lines.unshift(noticeLine(`${count(this.#lost)} lines did not fit while paused`, lines[0].at));
      this.#lost = 0;
    }
    this.add(lines);
  }

  /**
   * Narrow or widen what is shown.
   * @param {string} level the least level
   * @param {string} text words that must all occur; empty for any
   */
  filter(level, text) {
    this.#leastLevel = Math.max(0, LEVELS.indexOf(level));
    this.#words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = [];
    this.#orders = [];
    this.#trimmed = 0;
    this.#kept.lines.forEach((line, i) => this.#show(line, this.#kept.first + i));
  }

  /** Rows that left the front of `shown` since the last call. @returns {number} */
  takeTrimmed() {
    const trimmed = this.#trimmed;
    this.#trimmed = 0;
    return trimmed;
  }

  /** Gaps and notices always pass: they speak of what cannot be filtered. */
  #passes(line) {
    if (line.kind === "gap" || line.kind === "notice") return true;
    if (line.level && LEVELS.indexOf(line.level) < this.#leastLevel) return false;
    return this.#words.every((part) => line.haystack.includes(part));
  }

  #show(line, order) {
    if (!this.#passes(line)) return;
    const end = this.shown.length - 1;
    const last = this.shown[end];
    if (line.gap && last?.gap?.reason === line.gap.reason) {
      this.shown[end] = joinGaps(last, line);
      this.#orders[end] = order;
    } else {
      this.shown.push(line);
      this.#orders.push(order);
    }
  }

  #trim() {
    const { first } = this.#kept;
    let out = 0;
    while (out < this.#orders.length && this.#orders[out] < first) out += 1;
    this.shown.splice(0, out);
    this.#orders.splice(0, out);
    this.#trimmed += out;
  }
}
