/**
 * Virtual list of the log: up to 50 000 lines, of which only the rows in view exist as elements.
 *
 * Invariants:
 * 1. Every row has the height --row; only the open line has details below it, whose height is measured.
 * 2. A row that stays in view keeps its element, so that a text selection survives new lines.
 * 3. The view follows the newest line until the user scrolls up or selects a line; from then on the line at its top
 *    stays in place, whatever is added or removed above and below.
 */

import { element, setAttribute } from "/assets/dom.js";
import { indexOfOrder } from "/assets/logs.js";
import { Row } from "/assets/row.js";

/** @typedef {import("/assets/lines.js").Line} Line */

/** Rows rendered beyond each edge of the view, so that scrolling does not flicker. */
const OVERSCAN = 12;

export class LogList {
  #box;
  #space = element("div", "feed-space");
  #rows = element("div", "feed-rows");
  #detail = element("div", "detail");
  /** @type {Row[]} */ #drawn = [];
  /** Emptied array of the previous draw, reused because it is filled in every frame. @type {Row[]} */ #recycled = [];
  /** @type {Row[]} */ #spare = [];
  /** @type {Line[]} */ #lines = [];
  /** @type {Line|null} */ #selected = null;
  /** @type {Line|null} */ #open = null;
  #marked = NaN;
  #height = "";
  #detailHeight = 0;
  #rowHeight = 20;
  #view = 0;
  #top = 0;
  /** Scroll anchor: the position of a line, and the offset of the view below its top. */
  #anchor = { order: 0, offset: 0 };
  #following = true;
  #followAfter = false;
  #tools;

  /**
   * @param {HTMLElement} box scroll container
   * @param {object} tools
   * @param {(line: Line) => Node} tools.detail builds the details of a line
   * @param {(line: Line) => void} tools.load called when the user wants to load a gap
   */
  constructor(box, tools) {
    this.#box = box;
    this.#tools = tools;
    this.#detail.id = "details-body";
    this.#detail.setAttribute("role", "row");
    this.#space.append(this.#rows);
    box.append(this.#space);
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    box.addEventListener("keydown", (event) => this.#handleKey(event));
    box.addEventListener("click", (event) => this.#clicked(event));
    const observer = new ResizeObserver(() => this.#resized());
    observer.observe(box);
    observer.observe(this.#detail);
    // After layout, where setting it is cheap: an unchanged height needs no correction.
    new ResizeObserver(() => (box.scrollTop = this.#top)).observe(this.#space);
    this.#resized();
  }

  /** Set while the newest line is kept in view. */
  get following() {
    return this.#following;
  }

  /** Selected line. */
  get selected() {
    return this.#selected;
  }

  /** Scroll to the newest line and follow it; the selection is cleared. */
  follow() {
    this.#selected = null;
    this.#closeDetail();
    this.#following = true;
    this.#draw();
  }

  /** Show lines. @param {Line[]} lines all lines that match the filter, in order */
  show(lines) {
    this.#lines = lines;
    this.#draw(true);
  }

  /** Select a line, or none. @param {Line|null} line */
  select(line) {
    // Stop following while a line is selected; resume afterwards if it was followed before.
    if (line && !this.#selected) this.#followAfter = this.#following;
    if (!line) {
      this.#following ||= this.#selected !== null && this.#followAfter;
      this.#closeDetail();
    } else {
      this.#stopFollowing();
    }
    this.#selected = line;
    this.#draw();
  }

  /** Open or close the details of a line. @param {Line} line */
  toggle(line) {
    if (this.#open?.order === line.order) {
      this.#closeDetail();
    } else if (line.item) {
      this.#open = line;
      const inside = element("div", "detail-cell", this.#tools.detail(line));
      inside.setAttribute("role", "gridcell");
      this.#detail.replaceChildren(inside);
    }
    this.#draw();
    this.#detailHeight = this.#detail.offsetHeight;
    this.#draw();
    this.#reveal(indexOfOrder(this.#lines, line.order));
  }

  /** Mark the line that the URL links to, open it and scroll it into view. @param {Line} line */
  mark(line) {
    this.#marked = line.order;
    this.#selected = null;
    this.#stopFollowing();
    this.#followAfter = false;
    this.#anchor = { order: line.order, offset: -Math.floor(this.#view / 3) };
    this.#selected = line;
    this.toggle(line);
  }

  #closeDetail() {
    this.#open = null;
    this.#detailHeight = 0;
    const focused = this.#detail.contains(document.activeElement);
    this.#detail.remove();
    if (focused) this.#box.focus({ preventScroll: true });
  }

  /** Stop following the newest line, without moving the view. */
  #stopFollowing() {
    if (this.#following) this.#setAnchor();
    this.#following = false;
  }

  #setAnchor() {
    const index = this.#indexAt(this.#top);
    this.#anchor = { order: this.#lines[index]?.order ?? 0, offset: this.#top - this.#y(index) };
  }

  #resized() {
    this.#rowHeight = parseFloat(getComputedStyle(this.#box).getPropertyValue("--row")) || 20;
    const view = this.#box.clientHeight;
    const changed = view !== this.#view;
    this.#view = view;
    this.#detailHeight = this.#detail.offsetHeight;
    this.#draw();
    if (changed && this.#selected) this.#reveal(indexOfOrder(this.#lines, this.#selected.order));
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#box;
    // Only scrolling up is the user's doing: when the box shrinks, the end leaves the view without it.
    if (scrollTop + clientHeight >= scrollHeight - this.#rowHeight) this.#following = !this.#selected;
    else if (scrollTop < this.#top) this.#following = false;
    this.#top = scrollTop;
    if (!this.#following) this.#setAnchor();
    this.#draw();
  }

  #openIndex() {
    if (!this.#open) return -1;
    const index = indexOfOrder(this.#lines, this.#open.order);
    return this.#lines[index]?.order === this.#open.order ? index : -1;
  }

  #y(index) {
    const open = this.#openIndex();
    return index * this.#rowHeight + (open >= 0 && index > open ? this.#detailHeight : 0);
  }

  #indexAt(y) {
    const open = this.#openIndex();
    const below = open >= 0 ? (open + 1) * this.#rowHeight : Infinity;
    const rows = y < below ? y : y < below + this.#detailHeight ? below - 1 : y - this.#detailHeight;
    return Math.max(0, Math.min(this.#lines.length - 1, Math.floor(rows / this.#rowHeight)));
  }

  /** @param {boolean} [inFrame] whether layout follows in this frame, so that scrolling can wait for it */
  #draw(inFrame = false) {
    const size = this.#lines.length;
    const total = this.#y(size);
    const height = `${total}px`;
    const grown = this.#height !== height;
    if (grown) this.#space.style.height = this.#height = height;
    const { order, offset } = this.#anchor;
    const target = this.#following ? total - this.#view : this.#y(indexOfOrder(this.#lines, order)) + offset;
    const top = Math.max(0, Math.min(total - this.#view, target));
    const moved = Math.abs(top - this.#top) >= 0.5;
    if (inFrame ? moved && !grown : moved || this.#following) this.#box.scrollTop = top;
    this.#top = top;
    const first = Math.max(0, this.#indexAt(top) - OVERSCAN);
    const last = Math.min(size, this.#indexAt(top + this.#view) + 1 + OVERSCAN);
    this.#fill(first, last);
    this.#rows.style.transform = `translateY(${this.#y(first)}px)`;
    setAttribute(this.#box, "aria-rowcount", String(size));
  }

  /**
   * Keep the rows of lines that stay, and reuse the elements of the others for new lines. Drawn rows and lines are in the
   * same order, so one pass over both finds the rows that stay, and none of them is moved.
   */
  #fill(first, last) {
    const [lines, drawn, rows] = [this.#lines, this.#drawn, this.#recycled];
    let at = 0;
    for (let i = first; i < last; i += 1) {
      while (at < drawn.length && drawn[at].line !== lines[i] && drawn[at].line.order <= lines[i].order) {
        this.#releaseRow(drawn[at++]);
      }
      rows.push(drawn[at]?.line === lines[i] ? drawn[at++] : null);
    }
    while (at < drawn.length) this.#releaseRow(drawn[at++]);
    const [selected, open, marked] = [this.#selected?.order, this.#openIndex(), this.#marked];
    if (open < first || open >= last) this.#detail.remove();
    let next = this.#rows.firstChild;
    const put = (node) => {
      if (node === next) next = next.nextSibling;
      else this.#rows.insertBefore(node, next);
    };
    let activeId = null;
    for (let i = first; i < last; i += 1) {
      const line = lines[i];
      const row = (rows[i - first] ??= this.#acquireRow(line));
      row.setState(i, line.order === selected, i === open, line.order === marked);
      if (line.order === selected) activeId ??= row.root.id;
      put(row.root);
      if (i === open) put(this.#detail);
    }
    drawn.length = 0;
    [this.#drawn, this.#recycled] = [rows, drawn];
    setAttribute(this.#box, "aria-activedescendant", activeId);
  }

  #releaseRow(row) {
    row.root.remove();
    this.#spare.push(row);
  }

  #acquireRow(line) {
    const row = this.#spare.pop() ?? new Row();
    row.show(line);
    return row;
  }

  #clicked(event) {
    // A drag over text selects it for copying.
    if (!document.getSelection().isCollapsed) return;
    const root = event.target.closest(".row");
    const row = this.#drawn.find((candidate) => candidate.root === root);
    if (!row) return;
    const { line } = row;
    if (event.target.closest("button")) {
      this.#tools.load(line);
    } else if (this.#open?.order === line.order) {
      this.select(null);
    } else {
      this.select(line);
      this.toggle(line);
    }
  }

  #handleKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.#box) return;
    const end = this.#lines.length - 1;
    const page = Math.max(1, Math.floor(this.#view / this.#rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    const selected = this.#selected;
    if (event.key in steps) {
      // Without a selection, start at the edge of the view.
      const edge = this.#following ? end : this.#indexAt(this.#top + this.#rowHeight - 1);
      this.#selectIndex(selected ? indexOfOrder(this.#lines, selected.order) + steps[event.key] : edge);
    } else if (event.key === "Home") {
      this.#selectIndex(0);
    } else if (event.key === "Enter" && selected) {
      if (selected.gap) this.#tools.load(selected);
      else this.toggle(selected);
    } else {
      return;
    }
    event.preventDefault();
  }

  #selectIndex(index) {
    const at = Math.max(0, Math.min(this.#lines.length - 1, index));
    if (this.#lines.length === 0) return;
    this.select(this.#lines[at]);
    this.#reveal(at);
  }

  /** Scroll a line into view, with as much of its details as fits. */
  #reveal(index) {
    if (index < 0 || index >= this.#lines.length) return;
    const begin = this.#y(index);
    const end = begin + this.#rowHeight + (index === this.#openIndex() ? this.#detailHeight : 0);
    let top = this.#top;
    if (end > top + this.#view) top = end - this.#view;
    if (begin < top) top = begin;
    if (top === this.#top || this.#following) return;
    this.#box.scrollTop = top;
    this.#top = this.#box.scrollTop;
    this.#setAnchor();
    this.#draw();
  }
}
