/**
 * Bar of a gateway's last states, oldest on the left; each has a tooltip with its status, time and reason.
 *
 * Invariants: the pointer and the arrow keys show the same tooltips; screen readers get each state as the value of a
 * slider; only added and removed states are redrawn.
 */

import { element, setAttribute } from "/assets/dom.js";
import { statusLabel } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { duration, fullTime } from "/assets/times.js";
import { hideTooltip, showTooltip } from "/assets/tooltip.js";

/** @typedef {import("/assets/gateways.js").State} State */

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };

export class StateBar {
  /** @type {State[]} */ #states = [];
  #cells = element("div", "bar-cells");
  #index = -1;

  /** @param {string} [className] */
  constructor(className = "") {
    this.root = element("div", `bar ${className}`.trim(), this.#cells);
    this.root.setAttribute("role", "slider");
    this.root.setAttribute("aria-readonly", "true");
    this.root.tabIndex = 0;
    this.root.addEventListener("pointerover", (event) => this.#handlePointer(event.target));
    this.root.addEventListener("pointerleave", hideTooltip);
    this.root.addEventListener("focus", () => this.#select(this.#states.length - 1));
    this.root.addEventListener("blur", () => this.#leave());
    this.root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show states; an empty list empties the bar. @param {State[]} states oldest first */
  show(states) {
    const selected = this.#states[this.#index];
    const kept = this.#keep(states);
    while (this.#cells.children.length > kept) this.#cells.firstElementChild.remove();
    for (const { status } of states.slice(kept)) {
      const cell = element("span", "cell");
      cell.dataset.status = status;
      this.#cells.append(cell);
    }
    this.#states = [...states];
    if (selected) this.#select(Math.max(0, states.indexOf(selected)));
    else this.#updateAria(states.length - 1);
  }

  /** Return how many drawn cells can stay; states loaded from the history come before them. */
  #keep(states) {
    const end = this.#states.slice(this.#states.indexOf(states[0]));
    const same = states.length > 0 && this.#states.includes(states[0]) && end.every((state, i) => state === states[i]);
    return same ? end.length : 0;
  }

  #updateAria(index) {
    const count = this.#states.length;
    setAttribute(this.root, "aria-label", STRINGS.states.label(count));
    setAttribute(this.root, "aria-valuemin", "1");
    setAttribute(this.root, "aria-valuemax", String(Math.max(1, count)));
    setAttribute(this.root, "aria-valuenow", String(Math.max(1, index + 1)));
    setAttribute(this.root, "aria-valuetext", count ? this.#describe(index).join(", ") : STRINGS.states.none);
  }

  #describe(index) {
    const { status, at, fault } = this.#states[index];
    const next = this.#states[index + 1];
    const when = next ? STRINGS.states.lasted(fullTime(at), duration(next.at - at)) : STRINGS.states.since(fullTime(at));
    return [statusLabel(status), when, fault].filter(Boolean);
  }

  #handlePointer(target) {
    const index = [...this.#cells.children].indexOf(target);
    if (index >= 0) this.#showTip(index);
  }

  #showTip(index) {
    const [status, ...rest] = this.#describe(index);
    const head = element("strong", "", status);
    head.dataset.status = this.#states[index].status;
    showTooltip(this.#cells.children[index], head, ...rest);
  }

  #select(index) {
    if (!this.#states[index]) return;
    this.#cells.children[this.#index]?.removeAttribute("data-chosen");
    this.#index = index;
    setAttribute(this.#cells.children[index], "data-chosen", "");
    this.#updateAria(index);
    this.#showTip(index);
  }

  #leave() {
    this.#cells.children[this.#index]?.removeAttribute("data-chosen");
    this.#index = -1;
    hideTooltip();
  }

  #key(event) {
    const last = this.#states.length - 1;
    let next = this.#index + (STEPS[event.key] ?? 0);
    if (event.key === "Home") next = 0;
    else if (event.key === "End") next = last;
    else if (!(event.key in STEPS)) return;
    event.preventDefault();
    // The tiles use the same keys.
    event.stopPropagation();
    this.#select(Math.min(Math.max(next, 0), last));
  }
}
