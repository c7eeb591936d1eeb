/**
 * The gateways as tiles, gathered as the reader likes, worst first.
 *
 * Invariants: what is written at once is every tile that is near the view, and of the others as many as a few
 * milliseconds allow; the rest waits, so that a thousand changes at once do not hold the page up. Which are near is
 * read before anything is written, so that it costs no layout. Tiles are
 * one stop for the Tab key (and their bar another) and are walked with the arrow keys; the focus stays on its
 * gateway when tiles change places.
 */

import { arrange, element, setAttribute, setText } from "/assets/dom.js";
import { recall, store } from "/assets/remember.js";
import { statusMark, STATUSES } from "/assets/status.js";
import { Tile } from "/assets/tile.js";

/** @typedef {import("/assets/gateways.js").Gateway} Gateway */

/** More tiles than this, or a narrow window, and each shows only what matters most. */
const DENSE_FROM = 24;
const NARROW = "(max-width: 560px)";

/** How long a frame may write tiles that nobody sees yet. */
const BUDGET_MS = 4;
const NEAR = 200;

/**
 * Of many tiles, what changed is written at most so often, and places are changed at most so often: each time costs
 * the layout of all of them.
 */
const MANY = 200;
const WRITE_MS = 100;
const SETTLE_MS = 1_000;
const BY = ["none", "type", "group"];

class Head {
  #name = element("h3", "group-name");
  #counts = element("span", "group-counts");
  root = element("li", "group-head", this.#name, this.#counts);

  /** @param {string} name @param {Gateway[]} members worst first */
  show(name, members) {
    setText(this.#name, name);
    setAttribute(this.root, "data-group", name);
    const numbers = STATUSES.map((status) => members.filter((one) => one.status === status).length);
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

/** Index of the first tile from which on something is true; the number of tiles when it is of none. */
function indexWhere(tiles, holds) {
  let [low, high] = [0, tiles.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(tiles[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}

export class Tiles {
  /** @type {Map<string, Tile>} */ #tiles = new Map();
  /** @type {Map<Element, Tile>} */ #roots = new Map();
  /** @type {Map<string, Head>} */ #heads = new Map();
  /** In the order of the page. @type {Tile[]} */ #ordered = [];
  /** Not on the screen yet as they should be. @type {Set<Tile>} */ #dirty = new Set();
  #list;
  #select;
  #onPick;
  #onView;
  #open = "";
  /** @type {Tile|null} */ #stop = null;
  #narrow = window.matchMedia(NARROW);
  #moved = false;
  #arrangedAt = -SETTLE_MS;
  #writtenAt = -WRITE_MS;
  #timer = 0;
  /** Those near the view: which, and where they stand in the order. @type {Set<Tile>} */ #near = new Set();
  #from = 0;
  #to = 0;
  #looked = false;

  /**
   * @param {HTMLElement} list
   * @param {HTMLSelectElement} select what they are gathered by
   * @param {(gateway: Gateway) => void} onPick called with a gateway when its tile is pressed
   * @param {() => void} onView called when there is something to write that no event brought
   */
  constructor(list, select, onPick, onView) {
    this.#list = list;
    this.#select = select;
    this.#onPick = onPick;
    this.#onView = onView;
    list.addEventListener("scroll", () => this.#lookAgain(), { passive: true });
    new ResizeObserver(() => this.#lookAgain()).observe(list);
    this.#narrow.addEventListener("change", () => {
      this.#fit();
      this.#lookAgain();
    });
    list.addEventListener("keydown", (event) => this.#walk(event));
    list.addEventListener("focusin", (event) => this.#stopAt(this.#roots.get(event.target.closest("li"))));
    const remembered = recall("group-by");
    select.value = BY.includes(remembered) ? remembered : "none";
    select.addEventListener("change", () => {
      store("group-by", select.value === "none" ? "" : select.value);
      this.#moved = true;
      this.#arrangedAt = -SETTLE_MS;
      this.#writtenAt = -WRITE_MS;
      onView();
    });
  }

  /**
   * Bring the tiles up to date.
   * @param {import("/assets/gateways.js").Gateways} gateways
   * @param {number} now UNIX milliseconds
   * @returns {boolean} whether something was written
   */
  show(gateways, now) {
    const changed = gateways.takeChanged();
    for (const key of changed) this.#take(key, gateways.get(key));
    this.#moved ||= changed.size > 0;
    // Before anything is written, so that it costs no layout.
    if (!this.#looked) this.#look();
    if (!this.#moved && this.#dirty.size === 0) return false;
    if (!this.#due(this.#writtenAt + WRITE_MS)) return false;
    this.#writtenAt = performance.now();
    if (this.#moved && this.#due(this.#arrangedAt + SETTLE_MS)) this.#arrange(gateways.gathered(this.#select.value));
    if (this.#write(now)) this.#onView();
    return true;
  }

  /** Write what only time changes. @param {number} now */
  tick(now) {
    for (const tile of this.#tiles.values()) if (!this.#dirty.has(tile)) tile.tick(now);
  }

  /** Show which gateway's history is open. @param {string} key or empty */
  mark(key) {
    this.#tiles.get(this.#open)?.mark(false);
    this.#open = key;
    const tile = this.#tiles.get(key);
    tile?.mark(true);
    // What opens below takes room away.
    requestAnimationFrame(() => tile?.root.scrollIntoView({ block: "nearest" }));
  }

  /** Put the focus on a gateway's tile. @param {string} key */
  focus(key) {
    this.#tiles.get(key)?.button.focus();
  }

  #take(key, gateway) {
    let tile = this.#tiles.get(key);
    if (!gateway) {
      if (!tile) return;
      this.#tiles.delete(key);
      this.#roots.delete(tile.root);
      this.#near.delete(tile);
      this.#dirty.delete(tile);
      this.#arrangedAt = -SETTLE_MS;
      if (tile === this.#stop) this.#stop = null;
      return;
    }
    if (!tile) {
      tile = new Tile(gateway, this.#onPick);
      tile.mark(key === this.#open);
      this.#tiles.set(key, tile);
      this.#roots.set(tile.root, tile);
      // Who comes or goes is not kept waiting.
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
    const heads = new Map();
    for (const { name, members } of groups) {
      if (name) {
        const head = this.#heads.get(name) ?? new Head();
        head.show(name, members);
        heads.set(name, head);
        children.push(head.root);
      }
      for (const { key } of members) {
        const tile = this.#tiles.get(key);
        this.#ordered.push(tile);
        children.push(tile.root);
      }
    }
    this.#heads = heads;
    arrange(this.#list, children);
    this.#fit();
    // About these, without asking for the layout; it is looked at again when there is one.
    this.#bring(this.#from, this.#to);
    this.#lookAgain();
    if (!this.#list.contains(document.activeElement)) this.#stopAt(this.#ordered[0]);
  }

  /** Whether it is time, of many tiles; if not, it is looked at again when it is. @param {number} at */
  #due(at) {
    const wait = this.#tiles.size > MANY ? at - performance.now() : 0;
    if (wait <= 0) return true;
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.#onView();
    }, wait);
    return false;
  }

  /** @returns {boolean} some tiles are still to be written */
  #write(now) {
    for (const tile of this.#dirty) if (tile.near) this.#put(tile, now);
    const until = performance.now() + BUDGET_MS;
    for (const tile of this.#dirty) {
      if (performance.now() >= until) return true;
      this.#put(tile, now);
    }
    return false;
  }

  #put(tile, now) {
    this.#dirty.delete(tile);
    tile.show(now);
  }

  #lookAgain() {
    this.#looked = false;
    this.#onView();
  }

  /** Find out which tiles are near the view; they stand in rows from top to bottom. */
  #look() {
    this.#looked = true;
    const all = this.#ordered;
    if (all.length === 0) return;
    const begin = this.#list.firstElementChild.offsetTop + this.#list.scrollTop - NEAR;
    const end = begin + this.#list.clientHeight + 2 * NEAR;
    const from = indexWhere(all, ({ root }) => root.offsetTop + root.offsetHeight > begin);
    this.#bring(from, indexWhere(all, ({ root }) => root.offsetTop > end));
  }

  #bring(from, to) {
    const near = new Set(this.#ordered.slice(from, to));
    const [come, gone] = [[...near].filter((tile) => !tile.near), [...this.#near].filter((tile) => !near.has(tile))];
    [this.#near, this.#from, this.#to] = [near, from, to];
    for (const tile of [...come, ...gone]) {
      tile.near = !tile.near;
      this.#dirty.add(tile);
    }
    if (come.length === 0) return;
    // Whoever scrolls is not kept waiting. What is written may make rows higher.
    this.#writtenAt = -WRITE_MS;
    this.#lookAgain();
  }

  #fit() {
    const dense = this.#narrow.matches || this.#tiles.size > DENSE_FROM;
    setAttribute(this.#list, "data-dense", String(dense));
    setAttribute(this.#list.parentElement, "data-many", String(this.#tiles.size > MANY));
  }

  #stopAt(tile) {
    if (!tile || tile === this.#stop) return;
    this.#stop?.stop(false);
    this.#stop = tile;
    tile.stop(true);
  }

  #walk(event) {
    const here = this.#ordered.findIndex((tile) => tile.button === document.activeElement);
    if (here < 0) return;
    const next = this.#target(event.key, here);
    if (!next) return;
    event.preventDefault();
    next.button.focus();
  }

  #target(key, here) {
    const all = this.#ordered;
    switch (key) {
      case "ArrowRight":
        return all[here + 1];
      case "ArrowLeft":
        return all[here - 1];
      case "ArrowDown":
        return this.#beyond(all.slice(here), 1);
      case "ArrowUp":
        return this.#beyond(all.slice(0, here + 1).reverse(), -1);
      case "Home":
        return all[0];
      case "End":
        return all.at(-1);
      default:
        return undefined;
    }
  }

  /** The tile in the next row that is nearest to the first of these. */
  #beyond([from, ...others], direction) {
    const { offsetTop: top, offsetLeft: left } = from.root;
    const row = others.find((tile) => (tile.root.offsetTop - top) * direction > 0)?.root.offsetTop;
    const away = (tile) => Math.abs(tile.root.offsetLeft - left);
    return others.filter((tile) => tile.root.offsetTop === row).sort((a, b) => away(a) - away(b))[0];
  }
}
