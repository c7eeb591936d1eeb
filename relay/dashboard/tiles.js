/**
 * The gateways as tiles, gathered as the reader likes, worst first.
 *
 * Invariants: a frame writes every tile that is near the view, and of the others as many as a few milliseconds
 * allow; the rest waits for the next frames, so that a thousand changes at once do not hold the page up. Tiles are
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
const NEAR = "200px 0px";

/** Of many tiles, places are changed at most so often: each time costs the layout of all of them. */
const MANY = 200;
const SETTLE_MS = 250;
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

export class Tiles {
  /** @type {Map<string, Tile>} */ #tiles = new Map();
  /** @type {Map<Element, Tile>} */ #roots = new Map();
  /** @type {Map<string, Head>} */ #heads = new Map();
  /** In the order of the page. @type {Tile[]} */ #ordered = [];
  #list;
  #select;
  #onPick;
  #onView;
  #open = "";
  /** @type {Tile|null} */ #stop = null;
  #narrow = window.matchMedia(NARROW);
  #moved = false;
  #arrangedAt = -SETTLE_MS;
  #timer = 0;
  #view;

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
    this.#view = new IntersectionObserver((entries) => this.#viewed(entries), { root: list, rootMargin: NEAR });
    this.#narrow.addEventListener("change", () => this.#fit());
    list.addEventListener("keydown", (event) => this.#walk(event));
    list.addEventListener("focusin", (event) => this.#stopAt(this.#roots.get(event.target.closest("li"))));
    const remembered = recall("group-by");
    select.value = BY.includes(remembered) ? remembered : "none";
    select.addEventListener("change", () => {
      store("group-by", select.value === "none" ? "" : select.value);
      this.#moved = true;
      this.#arrangedAt = -SETTLE_MS;
      onView();
    });
  }

  /**
   * Bring the tiles up to date.
   * @param {import("/assets/gateways.js").Gateways} gateways
   * @param {number} now UNIX milliseconds
   */
  show(gateways, now) {
    const changed = gateways.takeChanged();
    for (const key of changed) this.#take(key, gateways.get(key));
    this.#moved ||= changed.size > 0;
    if (this.#moved && this.#settled()) this.#arrange(gateways.gathered(this.#select.value));
    if (this.#write(now)) this.#onView();
  }

  /** Write what only time changes. @param {number} now */
  tick(now) {
    for (const tile of this.#tiles.values()) if (!tile.dirty) tile.tick(now);
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
      this.#view.unobserve(tile.root);
      tile.dirty = false;
      if (tile === this.#stop) this.#stop = null;
      return;
    }
    if (!tile) {
      tile = new Tile(gateway, this.#onPick);
      tile.mark(key === this.#open);
      this.#tiles.set(key, tile);
      this.#roots.set(tile.root, tile);
      this.#view.observe(tile.root);
    }
    tile.gateway = gateway;
    tile.dirty = true;
  }

  #arrange(groups) {
    this.#moved = false;
    this.#arrangedAt = performance.now();
    clearTimeout(this.#timer);
    this.#timer = 0;
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
    if (!this.#list.contains(document.activeElement)) this.#stopAt(this.#ordered[0]);
  }

  /** Whether tiles may change places now; if not, it is looked at again when they may. */
  #settled() {
    const wait = this.#tiles.size > MANY ? this.#arrangedAt + SETTLE_MS - performance.now() : 0;
    if (wait > 0) this.#timer ||= setTimeout(this.#onView, wait);
    return wait <= 0;
  }

  /** @returns {boolean} some tiles are still to be written */
  #write(now) {
    const dirty = this.#ordered.filter((tile) => tile.dirty);
    for (const tile of dirty) if (tile.near) tile.show(now);
    const until = performance.now() + BUDGET_MS;
    const rest = dirty.filter((tile) => tile.dirty);
    let written = 0;
    while (written < rest.length && performance.now() < until) {
      rest[written].show(now);
      written += 1;
    }
    return written < rest.length;
  }

  #viewed(entries) {
    for (const { target, isIntersecting } of entries) {
      const tile = this.#roots.get(target);
      if (tile) tile.near = isIntersecting;
    }
    this.#onView();
  }

  #fit() {
    const dense = this.#narrow.matches || this.#tiles.size > DENSE_FROM;
    setAttribute(this.#list, "data-dense", String(dense));
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
