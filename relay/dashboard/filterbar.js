/**
 * Filter controls of the log, mirrored in the page's URL.
 *
 * Invariants: the controls and the URL always match; going back restores the previous filter, and typing one text is
 * a single history entry.
 */

import { byId, element } from "/assets/dom.js";
import { isEmpty, parseUrl, parseText, formatUrl, formatText } from "/assets/filters.js";

/** Maximum number of suggested sources. */
const MAX_SOURCES = 300;

export class FilterBar {
  #level = /** @type {HTMLSelectElement} */ (byId("level"));
  #source = /** @type {HTMLInputElement} */ (byId("source"));
  #text = /** @type {HTMLInputElement} */ (byId("filter"));
  #options = byId("sources");
  #sources = new Set();
  #typing = false;
  #onChange;

  /** Filter that the controls show. @type {import("/assets/filters.js").Filter} */
  filter;

  /** Cursor of the line that the URL links to; empty if there is none. */
  line = new URLSearchParams(location.search).get("line") ?? "";

  /** @param {() => void} onChange called when the filter changes */
  constructor(onChange) {
    this.#onChange = onChange;
    this.#show(parseUrl(location.search));
    this.#level.addEventListener("change", () => this.#read());
    this.#source.addEventListener("change", () => this.#read());
    this.#source.addEventListener("input", () => {
      // A partly typed text is not a source yet; one picked from the list is.
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
      this.#show(parseUrl(location.search));
      if (JSON.stringify(this.filter) !== before) this.#onChange();
    });
  }

  /** Text of the text field. */
  get text() {
    return this.#text.value;
  }

  /** Set if nothing is filtered. */
  get empty() {
    return isEmpty(this.filter);
  }

  /** Set the text of the text field. @param {string} text */
  setText(text) {
    this.#text.value = text;
    this.#read();
  }

  /** Show only one source. @param {string} source */
  filterSource(source) {
    this.#source.value = source;
    this.#read();
  }

  /** Reset all controls. */
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

  /** Remove the link to a line from the URL. */
  clearLine() {
    if (!this.line) return;
    this.line = "";
    history.replaceState(history.state, "", formatUrl(this.filter, ""));
  }

  /** Add the sources of lines to the suggestions. @param {import("/assets/lines.js").Line[]} lines */
  addSources(lines) {
    for (const { kind, source } of lines) {
      if (kind !== "log" || this.#sources.has(source) || this.#sources.size >= MAX_SOURCES) continue;
      this.#sources.add(source);
      const option = /** @type {HTMLOptionElement} */ (element("option"));
      option.value = source;
      this.#options.append(option);
    }
  }

  #show(filter) {
    this.filter = filter;
    this.#level.value = filter.level;
    this.#source.value = filter.source;
    this.#text.value = formatText(filter);
  }

  /** @param {boolean} [continued] the text was edited further: replace the history entry */
  #read(continued = false) {
    const filter = { level: this.#level.value, source: this.#source.value.trim(), ...parseText(this.#text.value) };
    if (JSON.stringify(filter) === JSON.stringify(this.filter)) return;
    this.filter = filter;
    this.line = "";
    const url = formatUrl(filter, "");
    if (continued) history.replaceState(history.state, "", url);
    else history.pushState(null, "", url);
    this.#onChange();
  }
}
