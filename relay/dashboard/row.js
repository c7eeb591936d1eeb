/**
 * Row of the log list, reused for different lines.
 *
 * Invariant: text of a producer is only ever set as text.
 */

import { element, setAttribute, setText } from "/assets/dom.js";
import { canLoad } from "/assets/lines.js";
import { STRINGS } from "/assets/strings.js";
import { clock, fullTime } from "/assets/times.js";

let made = 0;

const cell = (tag, name) => {
  const node = element(tag, name);
  node.setAttribute("role", "gridcell");
  return node;
};

export class Row {
  #time = element("time");
  #label = cell("span", "row-label");
  #source = cell("span", "row-source");
  #message = cell("span", "row-message");
  #load = element("button", "row-load");

  constructor() {
    const when = cell("span", "row-time");
    when.append(this.#time);
    this.act = cell("span", "row-act");
    this.#load.setAttribute("type", "button");
    // The list is a single tab stop; Enter on the row does the same as the button.
    this.#load.tabIndex = -1;
    this.act.append(this.#load);
    this.root = element("div", "row", when, this.#label, this.#source, this.#message, this.act);
    this.root.id = `row-${(made += 1)}`;
    this.root.setAttribute("role", "row");
  }

  /** @param {import("/assets/lines.js").Line} line */
  show(line) {
    this.line = line;
    const { gap } = line;
    setAttribute(this.root, "data-kind", line.kind);
    setAttribute(this.root, "data-level", line.level || null);
    setAttribute(this.root, "data-seq", line.item ? String(line.item.seq) : null);
    setText(this.#time, clock(line.at));
    setAttribute(this.#time, "title", fullTime(line.at));
    setText(this.#label, line.label);
    setText(this.#source, line.source);
    setAttribute(this.#source, "title", line.source || null);
    setText(this.#message, line.message);
    this.act.hidden = !(gap && (canLoad(line) || gap.state === "loading"));
    this.#load.disabled = gap?.state === "loading";
    setText(this.#load, gap?.state === "loading" ? STRINGS.gap.loading : gap?.state ? STRINGS.gap.retry : STRINGS.gap.load(gap?.dropped));
  }

  /**
   * @param {number} index
   * @param {boolean} selected
   * @param {boolean} open
   * @param {boolean} marked
   */
  setState(index, selected, open, marked) {
    setAttribute(this.root, "aria-rowindex", String(index + 1));
    setAttribute(this.root, "aria-selected", String(selected));
    setAttribute(this.root, "aria-expanded", this.line.item ? String(open) : null);
    setAttribute(this.root, "data-marked", marked ? "true" : null);
  }
}
