/**
 * The log on the screen: a list of thousands of lines of which only the rows in view exist.
 *
 * Invariants: every row is as high as --row says; a row that stays in view keeps its element, so a selection of
 * text survives what arrives below it; the view follows the newest line until the reader scrolls up, and then
 * stands still, also while old lines leave.
 */

import { element, setAttribute, setText } from "/assets/dom.js";
import { clock, fullTime } from "/assets/times.js";

/** @typedef {import("/assets/lines.js").Line} Line */

/** Rows beyond each edge of the view, so that scrolling does not flash. */
const OVERSCAN = 12;

class Row {
  #time = element("time", "row-time");
  #label = element("span", "row-label");
  #source = element("span", "row-source");
  #message = element("span", "row-message");

  constructor() {
    this.root = element("div", "row", this.#time, this.#label, this.#source, this.#message);
    this.root.setAttribute("role", "option");
  }

  /** @param {Line} line */
  show(line) {
    this.line = line;
    setAttribute(this.root, "data-kind", line.kind);
    setAttribute(this.root, "data-level", line.level || null);
    setText(this.#time, clock(line.at));
    setAttribute(this.#time, "title", fullTime(line.at));
    setText(this.#label, line.label);
    setText(this.#source, line.source);
    setAttribute(this.#source, "title", line.source);
    setText(this.#message, line.message);
  }

  /** @param {number} index @param {number} size @param {boolean} selected */
  place(index, size, selected) {
    setAttribute(this.root, "id", `row-${index}`);
    setAttribute(this.root, "aria-posinset", String(index + 1));
    setAttribute(this.root, "aria-setsize", String(size));
    setAttribute(this.root, "aria-selected", String(selected));
  }
}

export class Feed {
  #box;
  #space = element("div", "feed-space");
  #rows = element("div", "feed-rows");
  /** @type {Row[]} */ #drawn = [];
  /** @type {Row[]} */ #spare = [];
  /** @type {Line[]} */ #lines = [];
  /** @type {Line|null} */ #selected = null;
  #rowHeight = 20;
  #top = 0;
  #following = true;
  #followAfter = false;
  #onSelect;

  /**
   * @param {HTMLElement} box the element that scrolls
   * @param {(line: Line|null) => void} onSelect called when a line is chosen, or none
   */
  constructor(box, onSelect) {
    this.#box = box;
    this.#onSelect = onSelect;
    this.#space.append(this.#rows);
    box.append(this.#space);
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    box.addEventListener("keydown", (event) => this.#walk(event));
    box.addEventListener("click", (event) => this.#clicked(event));
    new ResizeObserver(() => this.#resized()).observe(box);
    this.#measure();
  }

  /** True while the newest line is kept in view. */
  get following() {
    return this.#following;
  }

  /** Go to the newest line and follow it from here on; a chosen line is let go. */
  follow() {
    this.#followAfter = true;
    this.select(null);
    this.#following = true;
    this.#draw();
  }

  /**
   * Show lines.
   * @param {Line[]} lines all that pass the filter
   * @param {number} trimmed how many left at the front since the last call
   */
  show(lines, trimmed) {
    this.#lines = lines;
    if (!this.#following && trimmed > 0) this.#box.scrollTop -= trimmed * this.#rowHeight;
    this.#draw();
  }

  /** Choose a line, or none. @param {Line|null} line */
  select(line) {
    if (line === this.#selected) return;
    // Reading one line means standing still; what was followed before is followed again afterwards.
    if (!this.#selected) this.#followAfter = this.#following;
    this.#following = line === null && this.#followAfter;
    this.#selected = line;
    this.#draw();
    this.#onSelect(line);
  }

  #measure() {
    this.#rowHeight = parseFloat(getComputedStyle(this.#box).getPropertyValue("--row")) || 20;
    this.#draw();
  }

  #resized() {
    this.#measure();
    const index = this.#selected ? this.#lines.indexOf(this.#selected) : -1;
    if (index >= 0 && !this.#following) this.#reveal(index);
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#box;
    // Only a move upwards is the reader's: when the box shrinks, the end leaves the view without one.
    if (scrollTop + clientHeight >= scrollHeight - this.#rowHeight) this.#following = !this.#selected;
    else if (scrollTop < this.#top) this.#following = false;
    this.#draw();
  }

  #draw() {
    const high = this.#rowHeight;
    const size = this.#lines.length;
    const height = `${size * high}px`;
    if (this.#space.style.height !== height) this.#space.style.height = height;
    if (this.#following) this.#box.scrollTop = size * high;
    const top = this.#box.scrollTop;
    this.#top = top;
    const first = Math.max(0, Math.min(size, Math.floor(top / high) - OVERSCAN));
    const last = Math.min(size, Math.ceil((top + this.#box.clientHeight) / high) + OVERSCAN);
    this.#fill(this.#lines.slice(first, last), first, size);
    this.#rows.style.transform = `translateY(${first * high}px)`;
  }

  /** Keep the rows of lines that stay, and give the others' elements to the lines that come. */
  #fill(lines, first, size) {
    const wanted = new Set(lines);
    const kept = new Map();
    for (const row of this.#drawn) {
      if (wanted.has(row.line)) {
        kept.set(row.line, row);
      } else {
        row.root.remove();
        this.#spare.push(row);
      }
    }
    this.#drawn = lines.map((line, i) => {
      let row = kept.get(line);
      if (!row) {
        row = this.#spare.pop() ?? new Row();
        row.show(line);
      }
      const place = this.#rows.children[i] ?? null;
      if (place !== row.root) this.#rows.insertBefore(row.root, place);
      row.place(first + i, size, line === this.#selected);
      return row;
    });
    const chosen = this.#drawn.find((row) => row.line === this.#selected);
    setAttribute(this.#box, "aria-activedescendant", chosen ? chosen.root.id : null);
  }

  #clicked(event) {
    // Whoever drags over text wants to copy it.
    if (!document.getSelection().isCollapsed) return;
    const root = event.target.closest(".row");
    const row = this.#drawn.find((candidate) => candidate.root === root);
    if (row) this.select(row.line === this.#selected ? null : row.line);
  }

  #walk(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.#box.clientHeight / this.#rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    const end = this.#lines.length - 1;
    let here = this.#selected ? this.#lines.indexOf(this.#selected) : -1;
    if (event.key in steps) here = here < 0 ? end : here + steps[event.key];
    else if (event.key === "Home") here = 0;
    else if (event.key === "End") here = end;
    else return;
    event.preventDefault();
    here = Math.min(end, Math.max(0, here));
    if (end < 0) return;
    this.#reveal(here);
    this.select(this.#lines[here]);
  }

  #reveal(index) {
    const top = index * this.#rowHeight;
    const { scrollTop, clientHeight } = this.#box;
    if (top < scrollTop) this.#box.scrollTop = top;
    else if (top + this.#rowHeight > scrollTop + clientHeight) {
      this.#box.scrollTop = top + this.#rowHeight - clientHeight;
    }
  }
}
