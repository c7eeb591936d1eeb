/**
 * The gateways as tiles, worst first.
 *
 * Invariants: a tile is built once and then only written where it differs; tiles are one stop for the Tab key
 * and are walked with the arrow keys; the focus stays on its gateway when tiles change places.
 */

import { arrange, element, setAttribute, setText } from "/assets/dom.js";
import { HISTORY } from "/assets/gateways.js";
import { statusMark, word } from "/assets/status.js";
import { duration, fullTime } from "/assets/times.js";

/** @typedef {import("/assets/gateways.js").Gateway} Gateway */

/** More tiles than this, or a narrow window, and each shows only what matters most. */
const DENSE_FROM = 24;
const NARROW = "(max-width: 560px)";

class Tile {
  #mark = statusMark();
  #name = element("button", "tile-name");
  #kind = element("span", "tile-kind");
  #since = element("time", "tile-since");
  #change = element("span", "tile-change");
  #latency = element("span", "tile-latency");
  #fault = element("p", "tile-fault");
  #bar = element("div", "tile-bar");
  /** @type {Gateway|null} */ #gateway = null;

  /** States that have a cell. @type {{status: string, at: number}[]} */
  #drawn = [];

  /** @param {(id: string) => void} onPick called with the gateway's id */
  constructor(onPick) {
    this.#name.type = "button";
    this.#name.addEventListener("click", () => onPick(this.#gateway.id));
    this.#bar.setAttribute("role", "img");
    this.root = element(
      "li",
      "tile",
      element("div", "tile-line", this.#name, this.#mark.root),
      element("div", "tile-line tile-small", this.#kind, this.#since),
      this.#bar,
      element("div", "tile-line tile-small", this.#change, this.#latency),
      this.#fault,
    );
  }

  get button() {
    return this.#name;
  }

  /** @param {Gateway} gateway @param {number} now */
  show(gateway, now) {
    this.#gateway = gateway;
    const { id, type, group, status, previous, fault, latency } = gateway;
    setAttribute(this.root, "data-gateway", id);
    setAttribute(this.root, "data-status", status);
    this.#mark.set(status);
    setText(this.#name, id);
    setAttribute(this.#name, "title", `${id}: show its lines in the log`);
    setText(this.#kind, [type, group].filter(Boolean).join(" · "));
    setText(this.#change, previous ? `${word(previous)} → ${word(status)}` : "first seen");
    setText(this.#latency, latency);
    setText(this.#fault, fault);
    setAttribute(this.#fault, "title", fault);
    this.#fault.hidden = !fault;
    setAttribute(this.#since, "datetime", new Date(gateway.since).toISOString());
    setAttribute(this.#since, "title", `${word(status)} since ${fullTime(gateway.since)}`);
    this.#drawBar(gateway.history);
    this.tick(now);
  }

  /** Only what came in or fell out is touched; the states between stay as they are. */
  #drawBar(history) {
    const kept = this.#drawn.filter((state) => history.includes(state)).length;
    while (this.#bar.children.length > kept) this.#bar.firstElementChild.remove();
    for (const state of history.slice(kept)) {
      const cell = element("span", "cell");
      cell.dataset.status = state.status;
      cell.title = `${word(state.status)} at ${fullTime(state.at)}`;
      this.#bar.append(cell);
    }
    this.#drawn = [...history];
    const states = history.slice(-5).map((state) => word(state.status));
    const label = `Last ${history.length} of at most ${HISTORY} states, ending in ${states.join(", ")}`;
    setAttribute(this.#bar, "aria-label", label);
  }

  /** Write what only time changes. @param {number} now */
  tick(now) {
    setText(this.#since, duration(now - this.#gateway.since));
  }

  /** @param {string} id the one that the log is narrowed to, or empty */
  mark(id) {
    setAttribute(this.#name, "aria-pressed", String(this.#gateway.id === id));
  }
}

export class Tiles {
  /** @type {Map<string, Tile>} */ #tiles = new Map();
  #list;
  #onPick;
  #picked = "";
  #narrow = window.matchMedia(NARROW);

  /**
   * @param {HTMLElement} list
   * @param {(id: string) => void} onPick called with a gateway's id when its tile is pressed
   */
  constructor(list, onPick) {
    this.#list = list;
    this.#onPick = onPick;
    this.#narrow.addEventListener("change", () => this.#fit());
    list.addEventListener("keydown", (event) => this.#walk(event));
    list.addEventListener("focusin", (event) => this.#stopAt(event.target));
  }

  /**
   * Bring the tiles up to date.
   * @param {import("/assets/gateways.js").Gateways} gateways
   * @param {number} now UNIX milliseconds
   */
  show(gateways, now) {
    const changed = gateways.takeChanged();
    if (changed.size === 0) return;
    for (const key of changed) {
      const gateway = gateways.get(key);
      if (!gateway) {
        this.#tiles.delete(key);
        continue;
      }
      const tile = this.#tiles.get(key) ?? new Tile(this.#onPick);
      this.#tiles.set(key, tile);
      tile.show(gateway, now);
      tile.mark(this.#picked);
    }
    arrange(
      this.#list,
      gateways.sorted().map(({ key }) => this.#tiles.get(key).root),
    );
    this.#fit();
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    this.#stopAt(focused ?? this.#list.querySelector("button"));
  }

  /** Write what only time changes. @param {number} now */
  tick(now) {
    for (const tile of this.#tiles.values()) tile.tick(now);
  }

  /** Show which gateway the log is narrowed to. @param {string} id */
  mark(id) {
    if (id === this.#picked) return;
    this.#picked = id;
    for (const tile of this.#tiles.values()) tile.mark(id);
  }

  #fit() {
    const dense = this.#narrow.matches || this.#tiles.size > DENSE_FROM;
    setAttribute(this.#list, "data-dense", String(dense));
  }

  #stopAt(button) {
    for (const tile of this.#tiles.values()) tile.button.tabIndex = tile.button === button ? 0 : -1;
  }

  #walk(event) {
    const buttons = [...this.#list.querySelectorAll("button")];
    const here = buttons.indexOf(document.activeElement);
    if (here < 0) return;
    const tops = buttons.map((button) => button.closest("li").offsetTop);
    const across = Math.max(1, tops.filter((top) => top === tops[0]).length);
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across };
    let next = here + (steps[event.key] ?? 0);
    if (event.key === "Home") next = 0;
    if (event.key === "End") next = buttons.length - 1;
    if (next === here || !buttons[next]) return;
    event.preventDefault();
    buttons[next].focus();
  }
}
