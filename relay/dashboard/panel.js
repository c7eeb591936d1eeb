/**
 * The log's tools (level, text, pause, jump), its details, and the keys of the page.
 *
 * Invariants: a key that types a character is left alone while the reader types; `p` does what the pause button
 * does; Esc undoes one thing at a time: the details, then the filter.
 */

import { byId, setAttribute, setText } from "/assets/dom.js";
import { Feed } from "/assets/feed.js";
import { Logs } from "/assets/logs.js";
import { count } from "/assets/times.js";

/** Characters of an event that the details show. */
const DETAIL_CHARACTERS = 100_000;

export class LogPanel {
  #logs = new Logs();
  #feed;
  #level = /** @type {HTMLSelectElement} */ (byId("level"));
  #text = /** @type {HTMLInputElement} */ (byId("filter"));
  #pause = byId("pause");
  #fresh = byId("fresh");
  #jump = byId("jump");
  #counts = byId("log-counts");
  #empty = byId("log-empty");
  #details = byId("details");
  #onFilter;
  #dirty = true;
  #unseen = 0;

  /** @param {(text: string) => void} onFilter called with the text filter when it changes */
  constructor(onFilter) {
    this.#onFilter = onFilter;
    this.#feed = new Feed(byId("feed"), (line) => this.#showDetails(line));
    this.#level.addEventListener("change", () => this.#filter());
    this.#text.addEventListener("input", () => this.#filter());
    this.#pause.addEventListener("click", () => this.#togglePause());
    this.#jump.addEventListener("click", () => {
      this.#feed.follow();
      this.#dirty = true;
    });
    byId("details-close").addEventListener("click", () => this.#feed.select(null));
    document.addEventListener("keydown", (event) => this.#key(event));
    // A browser restores what was typed before a reload.
    this.#filter();
  }

  /** Take in lines. @param {import("/assets/lines.js").Line[]} lines in order */
  add(lines) {
    const before = this.#logs.shown.length;
    this.#logs.add(lines);
    if (!this.#feed.following) this.#unseen += Math.max(0, this.#logs.shown.length - before);
    this.#dirty = true;
  }

  /** What the log is narrowed to; empty when it is not. */
  get text() {
    return this.#text.value;
  }

  /** Narrow the log to a text, or back to all of it when it is narrowed to that already. @param {string} text */
  narrow(text) {
    this.#text.value = this.#text.value === text ? "" : text;
    this.#filter();
  }

  /** Draw what changed; called once per frame. */
  draw() {
    const { following } = this.#feed;
    if (following) this.#unseen = 0;
    this.#jump.hidden = following;
    if (!following) setText(this.#jump, this.#unseen ? `${count(this.#unseen)} newer ↓` : "Newest ↓");
    if (!this.#dirty) return;
    this.#dirty = false;
    const { shown, total, waiting, paused } = this.#logs;
    this.#feed.show(shown, this.#logs.takeTrimmed());
    setText(this.#counts, shown.length === total ? count(total) : `${count(shown.length)} of ${count(total)}`);
    setText(this.#fresh, paused ? `${count(waiting)} new` : "");
    this.#empty.hidden = shown.length > 0;
    setText(this.#empty, total === 0 ? "No lines yet." : "No line passes the filter.");
  }

  #filter() {
    this.#logs.filter(this.#level.value, this.#text.value);
    this.#feed.follow();
    this.#onFilter(this.#text.value);
    this.#dirty = true;
  }

  #togglePause() {
    const paused = !this.#logs.paused;
    this.#logs.pause(paused);
    setAttribute(this.#pause, "aria-pressed", String(paused));
    setText(byId("pause-word"), paused ? "Resume" : "Pause");
    setAttribute(byId("log"), "data-paused", String(paused));
    this.#dirty = true;
  }

  #showDetails(line) {
    this.#details.hidden = line === null;
    if (!line) return;
    const { item } = line;
    setText(byId("details-subject"), item ? item.subject : line.label);
    setText(byId("details-seq"), item ? `#${item.seq}` : "");
    const body = item ? JSON.stringify(item.event, null, 2) : line.message;
    setText(byId("details-body"), body.slice(0, DETAIL_CHARACTERS));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape") {
      this.#clear();
      return;
    }
    if (event.target.closest("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      this.#text.focus();
      this.#text.select();
    } else if (event.key === "p" && !event.repeat) {
      event.preventDefault();
      this.#togglePause();
    }
  }

  #clear() {
    if (!this.#details.hidden) {
      this.#feed.select(null);
    } else if (this.#text.value || this.#level.selectedIndex > 0) {
      this.#text.value = "";
      this.#level.selectedIndex = 0;
      this.#filter();
    } else if (document.activeElement instanceof HTMLInputElement) {
      document.activeElement.blur();
    }
  }
}
