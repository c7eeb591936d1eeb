/**
 * The log: received and loaded lines, their filter, and the page's keyboard shortcuts.
 *
 * Invariants: the relay is asked for what the filter matches, as far as a subscription can express it; shortcuts that
 * type a character are inactive while the user types; `p` does the same as the pause button; Esc undoes one step at a
 * time: the selected line, then the filter.
 */

import { FilterCoverage } from "/assets/coverage.js";
import { copy, details, lineText } from "/assets/details.js";
import { byId, setAttribute, setText } from "/assets/dom.js";
import { LogList } from "/assets/loglist.js";
import { FilterBar } from "/assets/filterbar.js";
import { subscriptionFor, sameSubscription, matcherFor, formatUrl } from "/assets/filters.js";
import { eventLine, gapLine, noticeLine } from "/assets/lines.js";
import { Backfill } from "/assets/backfill.js";
import { Logs } from "/assets/logs.js";
import { readCursor } from "/assets/cursor.js";
import { relayNow } from "/assets/relayclock.js";
import { STRINGS } from "/assets/strings.js";
import { count } from "/assets/times.js";

export class LogPane {
  #logs = new Logs();
  #list;
  #bar;
  #backfill = new Backfill(this.#logs, () => this.#changed());
  #coverage = new FilterCoverage();
  /** Subscription in effect. @type {import("/assets/filters.js").Subscription|null} */ #subscription = null;
  #epoch = "";
  #marked = NaN;
  #pause = byId("pause");
  #fresh = byId("fresh");
  #jump = byId("jump");
  #counts = byId("log-counts");
  #empty = byId("log-empty");
  #onChange;
  #onSubscribe;
  #dirty = true;
  #unseen = 0;

  /**
   * @param {() => void} onChange called when the log has to be redrawn for another reason than a new event
   * @param {(subscription: import("/assets/filters.js").Subscription) => void} onSubscribe called when another subscription is needed
   */
  constructor(onChange, onSubscribe) {
    this.#onChange = onChange;
    this.#onSubscribe = onSubscribe;
    this.#list = new LogList(byId("feed"), {
      detail: (line) => details(line, this.#actions(line)),
      load: (line) => this.#backfill.fill(line),
    });
    this.#bar = new FilterBar(() => this.#filter());
    this.#pause.addEventListener("click", () => this.#togglePause());
    this.#jump.addEventListener("click", () => this.#toNewest());
    document.addEventListener("keydown", (event) => this.#key(event));
    this.#filter();
  }

  /**
   * Add events.
   * @param {import("/assets/link.js").Item[]} items in stream order
   * @param {number} now UNIX milliseconds
   */
  add(items, now) {
    this.#add(items.map((item) => eventLine(item, JSON.stringify(item).length, now, this.#backfill.base)));
  }

  /** Add a gap. @param {Record<string, any>} gap @param {number} at UNIX milliseconds, NaN if unknown */
  gap(gap, at) {
    this.#add([gapLine({ ...gap, subscription: this.#subscription }, at, this.#backfill.base)]);
  }

  /**
   * Handle a subscription that takes effect, and load what an earlier, narrower one left out.
   * @param {string} cursor
   * @param {import("/assets/filters.js").Subscription} subscription
   */
  subscribed(cursor, subscription) {
    const first = this.#epoch === "";
    // Keep the identity of an equal subscription: only gaps of the same one are joined.
    if (!this.#subscription || !sameSubscription(this.#subscription, subscription)) this.#subscription = subscription;
    this.#epoch = readCursor(cursor).epoch;
    if (first && this.#bar.line) this.#openLine(this.#bar.line, cursor);
    const missing = this.#coverage.extend(cursor, this.#subscription);
    if (!missing) return;
    const line = gapLine(missing, relayNow(), this.#backfill.base);
    this.#logs.insert([line]);
    this.#backfill.fill(line);
  }

  /** Add a message of the page itself. @param {string} text */
  notice(text) {
    this.#add([noticeLine(text, relayNow(), this.#logs.end + 0.1)]);
  }

  /** Start a new range of positions, because the stream was recreated and its sequences start over. */
  startEpoch() {
    this.#backfill.base = Math.ceil(this.#logs.end) + 1;
  }

  #add(lines) {
    const before = this.#logs.matching;
    this.#logs.add(lines);
    if (!this.#list.following) this.#unseen += Math.max(0, this.#logs.matching - before);
    this.#bar.addSources(lines);
    this.#dirty = true;
  }

  /** Text in the text filter; empty if there is none. */
  get text() {
    return this.#bar.text;
  }

  /** Filter the log by a text, or clear the text if it is set already. @param {string} text */
  narrow(text) {
    this.#bar.setText(this.#bar.text === text ? "" : text);
  }

  /** Draw what changed; called once per frame. */
  draw() {
    const { following } = this.#list;
    if (following) {
      this.#unseen = 0;
      this.#logs.releaseLoaded();
    }
    this.#jump.hidden = following;
    if (!following) setText(this.#jump, this.#unseen ? STRINGS.log.newer(count(this.#unseen)) : STRINGS.log.newest);
    if (!this.#dirty) return;
    this.#dirty = false;
    const { shown, matching, total, waiting, paused } = this.#logs;
    this.#list.show(shown);
    setText(this.#counts, matching === total ? count(total) : STRINGS.log.counts(count(matching), count(total)));
    setText(this.#fresh, paused ? STRINGS.log.fresh(count(waiting)) : "");
    this.#empty.hidden = shown.length > 0;
    setText(this.#empty, total === 0 ? STRINGS.log.none : STRINGS.log.noMatch);
  }

  #filter() {
    const passes = matcherFor(this.#bar.filter);
    if (!this.#bar.line) this.#marked = NaN;
    this.#logs.filter((line) => line.order === this.#marked || passes(line));
    this.#onSubscribe(subscriptionFor(this.#bar.filter));
    this.#list.follow();
    this.#dirty = true;
  }

  async #openLine(cursor, start) {
    const line = await this.#backfill.loadAround(cursor, start);
    // The user may have changed the filter in the meantime.
    if (!line || this.#bar.line !== cursor) return;
    this.#marked = line.order;
    this.#list.show(this.#logs.shown);
    this.#list.mark(line);
  }

  #actions(line) {
    const link = () => {
      const open = { level: "DEBUG", source: "", words: [], not: [] };
      return location.origin + formatUrl(open, `${this.#epoch}-${line.item.seq}`);
    };
    const ours = line.order > this.#backfill.base;
    return {
      link: ours && this.#epoch ? link : null,
      only: () => this.#bar.filterSource(line.source),
      close: () => this.#list.select(null),
    };
  }

  #changed() {
    this.#dirty = true;
    this.#onChange();
  }

  #toNewest() {
    this.#list.follow();
    this.#bar.clearLine();
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
    const selected = this.#list.selected;
    if (event.key === "/") {
      event.preventDefault();
      this.#bar.focus();
    } else if (event.key === "p" && !event.repeat) {
      event.preventDefault();
      this.#togglePause();
    } else if (event.key === "End" && (event.target === document.body || event.target.closest("#log"))) {
      event.preventDefault();
      this.#toNewest();
    } else if (event.key === "c" && selected?.item) {
      copy(lineText(selected));
    }
  }

  #clear() {
    if (this.#list.selected) {
      this.#list.select(null);
    } else if (!this.#bar.empty) {
      this.#bar.clear();
    } else if (document.activeElement instanceof HTMLInputElement) {
      document.activeElement.blur();
    }
  }
}
