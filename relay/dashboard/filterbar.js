/**
 * The fields that narrow the log, and their place in the address.
 *
 * Invariants: the fields and the address say the same; going back brings the filter before, and typing one text
 * is one step of that.
 */

import { byId, element } from "/assets/dom.js";
import { isOpen, readAddress, readText, writeAddress, writeText } from "/assets/filters.js";

/** Sources that are offered. */
const MOST_SOURCES = 300;

export class FilterBar {
  #level = /** @type {HTMLSelectElement} */ (byId("level"));
  #source = /** @type {HTMLInputElement} */ (byId("source"));
  #text = /** @type {HTMLInputElement} */ (byId("filter"));
  #offered = byId("sources");
  #sources = new Set();
  #typing = false;
  #onChange;

  /** What stands in the fields. @type {import("/assets/filters.js").Filter} */
  filter;

  /** Cursor of the line that the address points at; empty without one. */
  line = new URLSearchParams(location.search).get("line") ?? "";

  /** @param {() => void} onChange called when there is another filter */
  constructor(onChange) {
    this.#onChange = onChange;
    this.#show(readAddress(location.search));
    this.#level.addEventListener("change", () => this.#read());
    this.#source.addEventListener("change", () => this.#read());
    this.#source.addEventListener("input", () => {
      // What is half typed names no source; what was picked from the list does.
      const { value } = this.#source;
      if (!value || this.#sources.has(value)) this.#read();
    });
    this.#text.addEventListener("input", () => {
      this.#read(this.#typing);
      this.#typing = true;
    });
    this.#text.addEventListener("blur", () => (this.#typing = false));
    window.addEventListener("popstate", () => {
      const before = JSON.stringify(this.filter);
      this.#show(readAddress(location.search));
      if (JSON.stringify(this.filter) !== before) this.#onChange();
    });
  }

  /** What was typed as text. */
  get text() {
    return this.#text.value;
  }

  /** True when nothing is filtered. */
  get open() {
    return isOpen(this.filter);
  }

  /** Put a text into the field. @param {string} text */
  type(text) {
    this.#text.value = text;
    this.#read();
  }

  /** Show only one source. @param {string} source */
  only(source) {
    this.#source.value = source;
    this.#read();
  }

  /** Let everything through. */
  clear() {
    this.#level.value = "DEBUG";
    this.#source.value = "";
    this.#text.value = "";
    this.#read();
  }

  focus() {
    this.#text.focus();
    this.#text.select();
  }

  /** The address points at no line any more. */
  leaveLine() {
    if (!this.line) return;
    this.line = "";
    history.replaceState(history.state, "", writeAddress(this.filter, ""));
  }

  /** Offer sources to choose from. @param {import("/assets/lines.js").Line[]} lines that came */
  offer(lines) {
    for (const { kind, source } of lines) {
      if (kind !== "log" || this.#sources.has(source) || this.#sources.size >= MOST_SOURCES) continue;
      this.#sources.add(source);
      const option = /** @type {HTMLOptionElement} */ (element("option"));
      option.value = source;
      this.#offered.append(option);
    }
  }

  #show(filter) {
    this.filter = filter;
    this.#level.value = filter.level;
    this.#source.value = filter.source;
    this.#text.value = writeText(filter);
  }

  /** @param {boolean} [goingOn] the same text is typed on: no further step back */
  #read(goingOn = false) {
    const filter = { level: this.#level.value, source: this.#source.value.trim(), ...readText(this.#text.value) };
    if (JSON.stringify(filter) === JSON.stringify(this.filter)) return;
    this.filter = filter;
    this.line = "";
    const address = writeAddress(filter, "");
    if (goingOn) history.replaceState(history.state, "", address);
    else history.pushState(null, "", address);
    this.#onChange();
  }
}
