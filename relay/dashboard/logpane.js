/**
 * The log: what arrives, what is loaded, what of it is shown, and the keys of the page.
 *
 * Invariants: what the filter lets through is what the relay is asked for, as far as the relay can tell; a key that
 * types a character is left alone while the reader types; `p` does what the pause button does; Esc undoes one thing at a time: the chosen line, then the filter.
 */

import { Asked } from "/assets/asked.js";
import { copy, details, lineText } from "/assets/details.js";
import { byId, setAttribute, setText } from "/assets/dom.js";
import { Feed } from "/assets/feed.js";
import { FilterBar } from "/assets/filterbar.js";
import { askFor, same, testOf, writeAddress } from "/assets/filters.js";
import { eventLine, gapLine, noticeLine } from "/assets/lines.js";
import { Loads } from "/assets/loads.js";
import { Logs } from "/assets/logs.js";
import { readCursor } from "/assets/cursor.js";
import { present } from "/assets/present.js";
import { STRINGS } from "/assets/strings.js";
import { count } from "/assets/times.js";

export class LogPane {
  #logs = new Logs();
  #feed;
  #bar;
  #loads = new Loads(this.#logs, () => this.#changed());
  #asked = new Asked();
  /** What the relay was asked for last. @type {import("/assets/filters.js").Ask|null} */ #ask = null;
  #epoch = "";
  #marked = NaN;
  #pause = byId("pause");
  #fresh = byId("fresh");
  #jump = byId("jump");
  #counts = byId("log-counts");
  #empty = byId("log-empty");
  #onChange;
  #onWant;
  #dirty = true;
  #unseen = 0;

  /**
   * @param {() => void} onChange called when there is something to draw that no event brought
   * @param {(ask: import("/assets/filters.js").Ask) => void} onWant called with what the relay is to be asked for
   */
  constructor(onChange, onWant) {
    this.#onChange = onChange;
    this.#onWant = onWant;
    this.#feed = new Feed(byId("feed"), {
      detail: (line) => details(line, this.#acts(line)),
      load: (line) => this.#loads.fill(line),
    });
    this.#bar = new FilterBar(() => this.#filter());
    this.#pause.addEventListener("click", () => this.#togglePause());
    this.#jump.addEventListener("click", () => this.#toNewest());
    document.addEventListener("keydown", (event) => this.#key(event));
    this.#filter();
  }

  /**
   * Take in events.
   * @param {import("/assets/link.js").Item[]} items in stream order
   * @param {number} now UNIX milliseconds
   */
  add(items, now) {
    this.#add(items.map((item) => eventLine(item, JSON.stringify(item).length, now, this.#loads.base)));
  }

  /** Take in a gap. @param {Record<string, any>} gap @param {number} at UNIX milliseconds, NaN if unknown */
  gap(gap, at) {
    this.#add([gapLine({ ...gap, ask: this.#ask }, at, this.#loads.base)]);
  }

  /**
   * The relay sends what is asked for from a place on: what was not asked for before it is loaded.
   * @param {string} cursor
   * @param {import("/assets/filters.js").Ask} ask
   */
  asked(cursor, ask) {
    const first = this.#epoch === "";
    // The same object for the same question: gaps of one are joined.
    if (!this.#ask || !same(this.#ask, ask)) this.#ask = ask;
    this.#epoch = readCursor(cursor).epoch;
    if (first && this.#bar.line) this.#openAt(this.#bar.line, cursor);
    const missing = this.#asked.from(cursor, this.#ask);
    if (!missing) return;
    const line = gapLine(missing, present(), this.#loads.base);
    this.#logs.insert([line]);
    this.#loads.fill(line);
  }

  /** Say something between the lines. @param {string} text */
  notice(text) {
    this.#add([noticeLine(text, present(), this.#logs.end + 0.1)]);
  }

  /** The stream is another one: its sequences begin anew. */
  begin() {
    this.#loads.base = Math.ceil(this.#logs.end) + 1;
  }

  #add(lines) {
    const before = this.#logs.matching;
    this.#logs.add(lines);
    if (!this.#feed.following) this.#unseen += Math.max(0, this.#logs.matching - before);
    this.#bar.offer(lines);
    this.#dirty = true;
  }

  /** The text that the log is narrowed to; empty when it is not. */
  get text() {
    return this.#bar.text;
  }

  /** Narrow the log to a text, or back to all of it when it is narrowed to that already. @param {string} text */
  narrow(text) {
    this.#bar.type(this.#bar.text === text ? "" : text);
  }

  /** Draw what changed; called once per frame. */
  draw() {
    const { following } = this.#feed;
    if (following) {
      this.#unseen = 0;
      this.#logs.settle();
    }
    this.#jump.hidden = following;
    if (!following) setText(this.#jump, this.#unseen ? STRINGS.log.newer(count(this.#unseen)) : STRINGS.log.newest);
    if (!this.#dirty) return;
    this.#dirty = false;
    const { shown, matching, total, waiting, paused } = this.#logs;
    this.#feed.show(shown);
    setText(this.#counts, matching === total ? count(total) : STRINGS.log.counts(count(matching), count(total)));
    setText(this.#fresh, paused ? STRINGS.log.fresh(count(waiting)) : "");
    this.#empty.hidden = shown.length > 0;
    setText(this.#empty, total === 0 ? STRINGS.log.none : STRINGS.log.nonePass);
  }

  #filter() {
    const passes = testOf(this.#bar.filter);
    if (!this.#bar.line) this.#marked = NaN;
    this.#logs.filter((line) => line.order === this.#marked || passes(line));
    this.#onWant(askFor(this.#bar.filter));
    this.#feed.follow();
    this.#dirty = true;
  }

  async #openAt(place, start) {
    const line = await this.#loads.place(place, start);
    // Whoever narrowed the log meanwhile is not called back.
    if (!line || this.#bar.line !== place) return;
    this.#marked = line.order;
    this.#feed.show(this.#logs.shown);
    this.#feed.mark(line);
  }

  #acts(line) {
    const link = () => {
      const open = { level: "DEBUG", source: "", words: [], not: [] };
      return location.origin + writeAddress(open, `${this.#epoch}-${line.item.seq}`);
    };
    const ours = line.order > this.#loads.base;
    return {
      link: ours && this.#epoch ? link : null,
      only: () => this.#bar.only(line.source),
      close: () => this.#feed.select(null),
    };
  }

  #changed() {
    this.#dirty = true;
    this.#onChange();
  }

  #toNewest() {
    this.#feed.follow();
    this.#bar.leaveLine();
    this.#dirty = true;
  }

  #togglePause() {
    const paused = !this.#logs.paused;
    this.#logs.pause(paused);
    setAttribute(this.#pause, "aria-pressed", String(paused));
    setText(byId("pause-word"), paused ? STRINGS.log.resume : STRINGS.log.pause);
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
      this.#bar.focus();
    } else if (event.key === "p" && !event.repeat) {
      event.preventDefault();
      this.#togglePause();
    } else if (event.key === "End" && (event.target === document.body || event.target.closest("#log"))) {
      event.preventDefault();
      this.#toNewest();
    } else if (event.key === "c" && chosen?.item) {
      copy(lineText(chosen));
    }
  }

  #clear() {
    if (this.#feed.selected) {
      this.#feed.select(null);
    } else if (!this.#bar.open) {
      this.#bar.clear();
    } else if (document.activeElement instanceof HTMLInputElement) {
      document.activeElement.blur();
    }
  }
}
