/**
 * The last states of a gateway as a bar, oldest left; each says with a tip what it was, from when and why.
 *
 * Invariants: a pointer and the arrow keys find the same tips; a reader of a screen hears each state as the value
 * of a slider; only what came in or fell out is drawn anew.
 */

import { element, setAttribute } from "/assets/dom.js";
import { word } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { duration, fullTime } from "/assets/times.js";
import { hideTip, showTip } from "/assets/tip.js";

/** @typedef {import("/assets/gateways.js").State} State */

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };

export class StateBar {
  /** @type {State[]} */ #states = [];
  #cells = element("div", "bar-cells");
  #at = -1;

  /** @param {string} [className] */
  constructor(className = "") {
    this.root = element("div", `bar ${className}`.trim(), this.#cells);
    this.root.setAttribute("role", "slider");
    this.root.setAttribute("aria-readonly", "true");
    this.root.tabIndex = 0;
    this.root.addEventListener("pointerover", (event) => this.#point(event.target));
    this.root.addEventListener("pointerleave", hideTip);
    this.root.addEventListener("focus", () => this.#choose(this.#states.length - 1));
    this.root.addEventListener("blur", () => this.#leave());
    this.root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show states; none empties the bar. @param {State[]} states oldest first */
  show(states) {
    const chosen = this.#states[this.#at];
    const kept = this.#keep(states);
    while (this.#cells.children.length > kept) this.#cells.firstElementChild.remove();
    for (const { status } of states.slice(kept)) {
      const cell = element("span", "cell");
      cell.dataset.status = status;
      this.#cells.append(cell);
    }
    this.#states = [...states];
    if (chosen) this.#choose(Math.max(0, states.indexOf(chosen)));
    else this.#tell(states.length - 1);
  }

  /** How many of the drawn states are the first of these; what was looked up comes before them. */
  #keep(states) {
    const end = this.#states.slice(this.#states.indexOf(states[0]));
    const same = states.length > 0 && this.#states.includes(states[0]) && end.every((state, i) => state === states[i]);
    return same ? end.length : 0;
  }

  #tell(index) {
    const count = this.#states.length;
    setAttribute(this.root, "aria-label", STRINGS.states.label(count));
    setAttribute(this.root, "aria-valuemin", "1");
    setAttribute(this.root, "aria-valuemax", String(Math.max(1, count)));
    setAttribute(this.root, "aria-valuenow", String(Math.max(1, index + 1)));
    setAttribute(this.root, "aria-valuetext", count ? this.#words(index).join(", ") : STRINGS.states.none);
  }

  #words(index) {
    const { status, at, fault } = this.#states[index];
    const next = this.#states[index + 1];
    const when = next ? STRINGS.states.lasted(fullTime(at), duration(next.at - at)) : STRINGS.states.since(fullTime(at));
    return [word(status), when, fault].filter(Boolean);
  }

  #point(target) {
    const index = [...this.#cells.children].indexOf(target);
    if (index >= 0) this.#tip(index);
  }

  #tip(index) {
    const [status, ...rest] = this.#words(index);
    const head = element("strong", "", status);
    head.dataset.status = this.#states[index].status;
    showTip(this.#cells.children[index], head, ...rest);
  }

  #choose(index) {
    if (!this.#states[index]) return;
    this.#cells.children[this.#at]?.removeAttribute("data-chosen");
    this.#at = index;
    setAttribute(this.#cells.children[index], "data-chosen", "");
    this.#tell(index);
    this.#tip(index);
  }

  #leave() {
    this.#cells.children[this.#at]?.removeAttribute("data-chosen");
    this.#at = -1;
    hideTip();
  }

  #key(event) {
    const last = this.#states.length - 1;
    let next = this.#at + (STEPS[event.key] ?? 0);
    if (event.key === "Home") next = 0;
    else if (event.key === "End") next = last;
    else if (!(event.key in STEPS)) return;
    event.preventDefault();
    // The same keys walk the tiles.
    event.stopPropagation();
    this.#choose(Math.min(Math.max(next, 0), last));
  }
}
