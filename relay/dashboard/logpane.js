/**
 * The log's tools (level, text, pause, jump) and the keys of the page.
 *
 * Invariants: a key that types a character is left alone while the reader types; `p` does what the pause button
 * does; Esc undoes one thing at a time: the chosen line, then the filter.
 */

import { copy, details, lineText } from "/assets/details.js";
import { byId, setAttribute, setText } from "/assets/dom.js";
import { Feed } from "/assets/feed.js";
import { eventLine, gapLine, haystack, LEVELS, noticeLine } from "/assets/lines.js";
import { Logs } from "/assets/logs.js";
import { count } from "/assets/times.js";

export class LogPane {
  #logs = new Logs();
  #feed;
  #level = /** @type {HTMLSelectElement} */ (byId("level"));
  #text = /** @type {HTMLInputElement} */ (byId("filter"));
  #pause = byId("pause");
  #fresh = byId("fresh");
  #jump = byId("jump");
  #counts = byId("log-counts");
  #empty = byId("log-empty");
  #onFilter;
  #dirty = true;
  #unseen = 0;
  /** Sequences of this stream stand behind all lines of the stream before it. */
  #base = 0;

  /** @param {(text: string) => void} onFilter called with the text filter when it changes */
  constructor(onFilter) {
    this.#onFilter = onFilter;
    this.#feed = new Feed(byId("feed"), {
      detail: (line) => details(line, { link: () => "", only: () => this.narrow(line.source), close: () => this.#feed.select(null) }),
      load: () => {},
    });
    this.#level.addEventListener("change", () => this.#filter());
    this.#text.addEventListener("input", () => this.#filter());
    this.#pause.addEventListener("click", () => this.#togglePause());
    this.#jump.addEventListener("click", () => {
      this.#feed.follow();
      this.#dirty = true;
    });
    document.addEventListener("keydown", (event) => this.#key(event));
    // A browser restores what was typed before a reload.
    this.#filter();
  }

  /**
   * Take in events.
   * @param {import("/assets/connection.js").Item[]} items in stream order
   * @param {number} bytes about what each weighs
   * @param {number} now UNIX milliseconds
   */
  add(items, bytes, now) {
    this.#add(items.map((item) => eventLine(item, bytes, now, this.#base)));
  }

  /** Take in a gap. @param {Record<string, any>} gap @param {number} at UNIX milliseconds, NaN if unknown */
  gap(gap, at) {
    this.#add([gapLine(gap, at, this.#base)]);
  }

  /** Say something between the lines. @param {string} text */
  notice(text) {
    this.#add([noticeLine(text, Date.now(), this.#logs.end + 0.1)]);
  }

  /** The stream is another one: its sequences begin anew. */
  begin() {
    this.#base = Math.ceil(this.#logs.end) + 1;
  }

  #add(lines) {
    const before = this.#logs.matching;
    this.#logs.add(lines);
    if (!this.#feed.following) this.#unseen += Math.max(0, this.#logs.matching - before);
    this.#dirty = true;
  }

  /** Narrow the log to a text, or back to all of it when it is narrowed to that already. @param {string} text */
  narrow(text) {
    this.#text.value = this.#text.value === text ? "" : text;
    this.#filter();
  }

  /** Draw what changed; called once per frame. */
  draw() {
    const { following } = this.#feed;
    if (following) {
      this.#unseen = 0;
      this.#logs.settle();
    }
    this.#jump.hidden = following;
    if (!following) setText(this.#jump, this.#unseen ? `${count(this.#unseen)} newer ↓` : "Newest ↓");
    if (!this.#dirty) return;
    this.#dirty = false;
    const { shown, matching, total, waiting, paused } = this.#logs;
    this.#feed.show(shown);
    setText(this.#counts, matching === total ? count(total) : `${count(matching)} of ${count(total)}`);
    setText(this.#fresh, paused ? `${count(waiting)} new` : "");
    this.#empty.hidden = shown.length > 0;
    setText(this.#empty, total === 0 ? "No lines yet." : "No line passes the filter.");
  }

  #filter() {
    const least = LEVELS.indexOf(this.#level.value);
    const words = this.#text.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.#logs.filter((line) => {
      if (line.level && LEVELS.indexOf(line.level) < least) return false;
      const text = words.length > 0 ? haystack(line) : "";
      return words.every((part) => text.includes(part));
    });
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

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape") {
      this.#clear();
      return;
    }
    if (event.target.closest("input, select, textarea")) return;
    const chosen = this.#feed.selected;
    if (event.key === "/") {
      event.preventDefault();
      this.#text.focus();
      this.#text.select();
    } else if (event.key === "p" && !event.repeat) {
      event.preventDefault();
      this.#togglePause();
    } else if (event.key === "c" && chosen?.item) {
      copy(lineText(chosen));
    }
  }

  #clear() {
    if (this.#feed.selected) {
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
