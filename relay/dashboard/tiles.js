/**
 * Gateways as tiles, grouped as the user prefers, worst first.
 *
 * Invariants: tiles near the viewport are written immediately, others as far as a few milliseconds per frame allow, so
 * that a thousand simultaneous changes do not block the page. Which tiles are near is read before anything is written,
 * so that it forces no layout. The list is one tab stop (the bar of its tile another), and the arrow keys move between
 * tiles; the focus stays with its gateway when tiles move.
 */

import { arrange, element, setAttribute, setText } from "/assets/dom.js";
import { readPreference, savePreference } from "/assets/preferences.js";
import { statusMark, STATUSES } from "/assets/status.js";
import { Tile } from "/assets/tile.js";

/** @typedef {import("/assets/gateways.js").Gateway} Gateway */

/** With more tiles than this, or in a narrow window, tiles are compact. */
const DENSE_FROM = 24;
const NARROW = "(max-width: 560px)";

/** Time per frame for tiles outside of the view, in milliseconds, and the margin that counts as near, in pixels. */
const BUDGET_MS = 4;
const NEAR = 200;

/**
 * With many tiles, minimum intervals between two writes and between two reorderings, in milliseconds: each one costs a
 * layout of all tiles.
 */
const MANY = 200;
const WRITE_MS = 100;
const SETTLE_MS = 1_000;
const GROUPINGS = ["none", "type", "group"];

class GroupHeader {
  #name = element("h3", "group-name");
  #counts = element("span", "group-counts");
  root = element("li", "group-head", this.#name, this.#counts);

  /** @param {string} name @param {Gateway[]} members worst first */
  show(name, members) {
    setText(this.#name, name);
    setAttribute(this.root, "data-group", name);
    const numbers = STATUSES.map((status) => members.filter((member) => member.status === status).length);
    const key = numbers.join();
    if (this.root.dataset.key === key) return;
    this.root.dataset.key = key;
    const shown = STATUSES.map((status, i) => [status, numbers[i]]).filter(([, number]) => number > 0);
    this.#counts.replaceChildren(
      ...shown.map(([status, number]) => {
        const mark = statusMark();
        mark.set(status);
        mark.root.lastElementChild.before(element("b", "number", String(number)));
        return mark.root;
      }),
    );
  }
}

/** Return the index of the first tile that satisfies a monotonic predicate; the number of tiles if none does. */
function indexWhere(tiles, predicate) {
  let [low, high] = [0, tiles.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (predicate(tiles[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}

export class Tiles {
  /** @type {Map<string, Tile>} */ #tiles = new Map();
  /** @type {Map<Element, Tile>} */ #roots = new Map();
  /** @type {Map<string, GroupHeader>} */ #headers = new Map();
  /** Tiles in display order. @type {Tile[]} */ #ordered = [];
  /** Tiles whose elements are outdated. @type {Set<Tile>} */ #dirty = new Set();
  #list;
  #select;
  #onPick;
  #onView;
  #open = "";
  /** @type {Tile|null} */ #tabStop = null;
  #narrow = window.matchMedia(NARROW);
  #moved = false;
  #arrangedAt = -SETTLE_MS;
  #writtenAt = -WRITE_MS;
  #timer = 0;
  /** Tiles near the viewport, and their range in the order. @type {Set<Tile>} */ #near = new Set();
  #from = 0;
  #to = 0;
  #viewCurrent = false;

  /**
   * @param {HTMLElement} list
   * @param {HTMLSelectElement} select control for the grouping
   * @param {(gateway: Gateway) => void} onPick called with a gateway when its tile is clicked
   * @param {() => void} onView called when tiles have to be written for another reason than a new event
   */
  constructor(list, select, onPick, onView) {
    this.#list = list;
    this.#select = select;
    this.#onPick = onPick;
    this.#onView = onView;
    list.addEventListener("scroll", () => this.#invalidateView(), { passive: true });
    new ResizeObserver(() => this.#invalidateView()).observe(list);
    this.#narrow.addEventListener("change", () => {
      this.#updateDensity();
      this.#invalidateView();
    });
    list.addEventListener("keydown", (event) => this.#moveFocus(event));
    list.addEventListener("focusin", (event) => this.#setTabStop(this.#roots.get(event.target.closest("li"))));
    const stored = readPreference("group-by");
    select.value = GROUPINGS.includes(stored) ? stored : "none";
    select.addEventListener("change", () => {
      savePreference("group-by", select.value === "none" ? "" : select.value);
      this.#moved = true;
      this.#arrangedAt = -SETTLE_MS;
      this.#writtenAt = -WRITE_MS;
      onView();
    });
  }

  /**
   * Update the tiles.
   * @param {import("/assets/gateways.js").Gateways} gateways
   * @param {number} now UNIX milliseconds
   * @returns {boolean} whether something was written
   */
  show(gateways, now) {
    const changed = gateways.takeChanged();
    for (const key of changed) this.#update(key, gateways.get(key));
    this.#moved ||= changed.size > 0;
    // Before anything is written, so that it forces no layout.
    if (!this.#viewCurrent) this.#findNear();
    if (!this.#moved && this.#dirty.size === 0) return false;
    if (!this.#due(this.#writtenAt + WRITE_MS)) return false;
    this.#writtenAt = performance.now();
    if (this.#moved && this.#due(this.#arrangedAt + SETTLE_MS)) this.#arrange(gateways.grouped(this.#select.value));
    if (this.#write(now)) this.#onView();
    return true;
  }

  /** Update what depends on the time. @param {number} now */
  tick(now) {
    for (const tile of this.#tiles.values()) if (!this.#dirty.has(tile)) tile.tick(now);
  }

  /** Mark the tile whose history is open. @param {string} key or empty */
  mark(key) {
    this.#tiles.get(this.#open)?.mark(false);
    this.#open = key;
    const tile = this.#tiles.get(key);
    tile?.mark(true);
    // The history panel that opens below may cover the tile.
    requestAnimationFrame(() => tile?.root.scrollIntoView({ block: "nearest" }));
  }

  /** Focus the tile of a gateway. @param {string} key */
  focus(key) {
    this.#tiles.get(key)?.button.focus();
  }

  #update(key, gateway) {
    let tile = this.#tiles.get(key);
    if (!gateway) {
      if (!tile) return;
      this.#tiles.delete(key);
      this.#roots.delete(tile.root);
      this.#near.delete(tile);
      this.#dirty.delete(tile);
      this.#arrangedAt = -SETTLE_MS;
      if (tile === this.#tabStop) this.#tabStop = null;
      return;
    }
    if (!tile) {
      tile = new Tile(gateway, this.#onPick);
      tile.mark(key === this.#open);
      this.#tiles.set(key, tile);
      this.#roots.set(tile.root, tile);
      // Do not delay tiles that are added or removed.
      this.#arrangedAt = -SETTLE_MS;
    }
    tile.gateway = gateway;
    this.#dirty.add(tile);
  }

  #arrange(groups) {
    this.#moved = false;
    this.#arrangedAt = performance.now();
    const children = [];
    this.#ordered = [];
    const headers = new Map();
    for (const { name, members } of groups) {
      if (name) {
        const header = this.#headers.get(name) ?? new GroupHeader();
        header.show(name, members);
        headers.set(name, header);
        children.push(header.root);
      }
      for (const { key } of members) {
        const tile = this.#tiles.get(key);
        this.#ordered.push(tile);
        children.push(tile.root);
      }
    }
    this.#headers = headers;
    arrange(this.#list, children);
    this.#updateDensity();
    // Assume the same range, which forces no layout; it is corrected in the next frame.
    this.#setNear(this.#from, this.#to);
    this.#invalidateView();
    if (!this.#list.contains(document.activeElement)) this.#setTabStop(this.#ordered[0]);
  }

  /** Return whether an update is due; if not, schedule it. Only many tiles are delayed. @param {number} at */
  #due(at) {
    const wait = this.#tiles.size > MANY ? at - performance.now() : 0;
    if (wait <= 0) return true;
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.#onView();
    }, wait);
    return false;
  }

  /** Write outdated tiles within the budget. @returns {boolean} whether some are left */
  #write(now) {
    for (const tile of this.#dirty) if (tile.near) this.#render(tile, now);
    const until = performance.now() + BUDGET_MS;
    for (const tile of this.#dirty) {
      if (performance.now() >= until) return true;
      this.#render(tile, now);
    }
    return false;
  }

  #render(tile, now) {
    this.#dirty.delete(tile);
    tile.show(now);
  }

  #invalidateView() {
    this.#viewCurrent = false;
    this.#onView();
  }

  /** Find the tiles near the viewport; they are in rows from top to bottom. */
  #findNear() {
    this.#viewCurrent = true;
    const all = this.#ordered;
    if (all.length === 0) return;
    const begin = this.#list.firstElementChild.offsetTop + this.#list.scrollTop - NEAR;
    const end = begin + this.#list.clientHeight + 2 * NEAR;
    const from = indexWhere(all, ({ root }) => root.offsetTop + root.offsetHeight > begin);
    this.#setNear(from, indexWhere(all, ({ root }) => root.offsetTop > end));
  }

  #setNear(from, to) {
    const near = new Set(this.#ordered.slice(from, to));
    const [entered, left] = [[...near].filter((tile) => !tile.near), [...this.#near].filter((tile) => !near.has(tile))];
    [this.#near, this.#from, this.#to] = [near, from, to];
    for (const tile of [...entered, ...left]) {
      tile.near = !tile.near;
      this.#dirty.add(tile);
    }
    if (entered.length === 0) return;
    // Do not delay scrolling. New content may change the height of rows.
    this.#writtenAt = -WRITE_MS;
    this.#invalidateView();
  }

  #updateDensity() {
    const dense = this.#narrow.matches || this.#tiles.size > DENSE_FROM;
    setAttribute(this.#list, "data-dense", String(dense));
    setAttribute(this.#list.parentElement, "data-many", String(this.#tiles.size > MANY));
  }

  #setTabStop(tile) {
    if (!tile || tile === this.#tabStop) return;
    this.#tabStop?.setTabStop(false);
    this.#tabStop = tile;
    tile.setTabStop(true);
  }

  #moveFocus(event) {
    const index = this.#ordered.findIndex((tile) => tile.button === document.activeElement);
    if (index < 0) return;
    const next = this.#target(event.key, index);
    if (!next) return;
    event.preventDefault();
    next.button.focus();
  }

  #target(key, index) {
    const all = this.#ordered;
    switch (key) {
      case "ArrowRight":
        return all[index + 1];
      case "ArrowLeft":
        return all[index - 1];
      case "ArrowDown":
        return this.#adjacentRow(all.slice(index), 1);
      case "ArrowUp":
        return this.#adjacentRow(all.slice(0, index + 1).reverse(), -1);
      case "Home":
        return all[0];
      case "End":
        return all.at(-1);
      default:
        return undefined;
    }
  }

  /** Return the tile in the next row that is nearest to the first one. */
  #adjacentRow([from, ...others], direction) {
    const { offsetTop: top, offsetLeft: left } = from.root;
    const row = others.find((tile) => (tile.root.offsetTop - top) * direction > 0)?.root.offsetTop;
    const distance = (tile) => Math.abs(tile.root.offsetLeft - left);
    return others.filter((tile) => tile.root.offsetTop === row).sort((a, b) => distance(a) - distance(b))[0];
  }
}
