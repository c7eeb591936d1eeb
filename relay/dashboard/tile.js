/**
 * Tile of one gateway.
 *
 * Invariants: a tile always has its name and its status; everything else, which is most of its elements, exists only
 * while the tile is near the viewport or has the focus. Only changes are written.
 */

import { element, setAttribute, setText } from "/assets/dom.js";
import { latencyText } from "/assets/gateways.js";
import { LatencyLine } from "/assets/latency.js";
import { StateBar } from "/assets/statebar.js";
import { statusMark, statusLabel } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { clock, duration, fullTime } from "/assets/times.js";

/** @typedef {import("/assets/gateways.js").Gateway} Gateway */

/** Format a silence as a sentence. @param {Gateway["silence"]} silence */
export function silenceText({ until, reason, by }) {
  const end = Number.isFinite(until) ? fullTime(until).slice(0, 16) : "";
  return STRINGS.gateways.silence(end, by, reason);
}

/** Format a time as short as possible: with the date only if it is not today. */
function shortTime(at, now) {
  const full = fullTime(at);
  return full.slice(0, 10) === fullTime(now).slice(0, 10) ? clock(at).slice(0, 8) : full.slice(0, 16);
}

class Body {
  kind = element("span", "tile-kind");
  ago = element("span", "tile-ago");
  at = element("span", "tile-at");
  since = element("time", "tile-since", this.ago, this.at);
  change = element("span", "tile-change");
  latency = element("span", "tile-latency");
  fault = element("p", "tile-fault");
  flapping = element("span", "tag", STRINGS.gateways.flapping);
  silenced = element("span", "tag", STRINGS.gateways.silenced);
  tags = element("span", "tile-tags", this.flapping, this.silenced);
  line = new LatencyLine();
  bar = new StateBar("tile-bar");
  measured = element("span", "tile-measured");

  constructor() {
    this.measured.append(this.line.root, this.latency);
    this.parts = [
      element("div", "tile-line tile-small", this.kind, this.tags, this.since),
      this.bar.root,
      element("div", "tile-line tile-small", this.change, this.measured),
      this.fault,
    ];
  }

  /** @param {Gateway} gateway @param {number} now */
  show({ type, group, status, previous, fault, latency, silence, flapping, since, history, latencies }, now) {
    setText(this.kind, [type, group].filter(Boolean).join(" · "));
    setText(this.change, previous ? STRINGS.gateways.change(statusLabel(previous), statusLabel(status)) : STRINGS.gateways.firstSeen);
    setText(this.latency, latencyText(latency));
    setText(this.fault, fault);
    setAttribute(this.fault, "title", fault);
    this.fault.hidden = !fault;
    this.flapping.hidden = !flapping;
    setAttribute(this.silenced, "title", silence && silenceText(silence));
    setAttribute(this.since, "datetime", Number.isFinite(since) ? new Date(since).toISOString() : null);
    setText(this.at, STRINGS.gateways.since(shortTime(since, now)));
    this.bar.show(history);
    this.line.show(latencies.map(({ value }) => value));
  }
}

export class Tile {
  #mark = statusMark();
  #body = /** @type {Body|null} */ (null);
  #onPick;

  /** @type {Gateway} */ gateway;

  /** Set while the tile is in or near the viewport. */
  near = false;

  /** @param {Gateway} gateway @param {(gateway: Gateway) => void} onPick */
  constructor(gateway, onPick) {
    this.gateway = gateway;
    this.#onPick = () => onPick(this.gateway);
    this.button = element("button", "tile-name", gateway.id);
    this.button.type = "button";
    this.button.tabIndex = -1;
    this.button.setAttribute("aria-expanded", "false");
    this.button.setAttribute("aria-controls", "history");
    this.button.addEventListener("click", this.#onPick);
    this.root = element("li", "tile", element("div", "tile-line", this.button, this.#mark.root));
    this.root.dataset.gateway = gateway.id;
  }

  /** Show the current data. @param {number} now */
  show(now) {
    const { status } = this.gateway;
    setAttribute(this.root, "data-status", status);
    this.#mark.set(status);
    if (this.near) this.#build().show(this.gateway, now);
    else if (this.#body && !this.root.contains(document.activeElement)) this.#empty();
    this.tick(now);
  }

  /** Update what depends on the time. @param {number} now */
  tick(now) {
    const { silence, since } = this.gateway;
    const silenced = silence !== null && silence.until > now;
    setAttribute(this.root, "data-silenced", silenced ? "true" : null);
    if (!this.#body) return;
    setText(this.#body.ago, duration(now - since));
    this.#body.silenced.hidden = !silenced;
  }

  /** Mark the tile whose history is open. @param {boolean} open */
  mark(open) {
    setAttribute(this.button, "aria-expanded", String(open));
  }

  /** Make the tile the tab stop of the list, or not. @param {boolean} enabled */
  setTabStop(enabled) {
    this.button.tabIndex = enabled ? 0 : -1;
    if (this.#body) this.#body.bar.root.tabIndex = this.button.tabIndex;
  }

  #build() {
    if (this.#body) return this.#body;
    this.#body = new Body();
    this.#body.bar.root.tabIndex = this.button.tabIndex;
    this.#body.bar.root.addEventListener("click", this.#onPick);
    this.root.append(...this.#body.parts);
    return this.#body;
  }

  #empty() {
    for (const part of this.#body.parts) part.remove();
    this.#body = null;
  }
}
