/**
 * History of one gateway, newest first, loaded from the relay and extended by events that arrive.
 *
 * Invariants: each event has one row, whichever way it came; a response that arrives after another gateway was opened
 * is ignored.
 */

import { arrange, byId, element, setAttribute, setText } from "/assets/dom.js";
import { latencyText, readFault, readLatency } from "/assets/gateways.js";
import { LatencyChart } from "/assets/latency.js";
import { fetchPage } from "/assets/pages.js";
import { relayNow } from "/assets/relayclock.js";
import { StateBar } from "/assets/statebar.js";
import { readStatus, statusMark, statusLabel } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { silenceText } from "/assets/tile.js";
import { duration, fullTime, parseTime } from "/assets/times.js";
import { sentence } from "/assets/tokenform.js";

/** @typedef {import("/assets/gateways.js").Gateway} Gateway */
/** @typedef {import("/assets/link.js").Item} Item */

/** Events per request, and the maximum in the panel. */
const PAGE = 100;
const MAX_EVENTS = 1_000;

/** Windows in which the panel covers everything; the same limit as in history.css. */
const FULLSCREEN = window.matchMedia("(max-width: 900px)");

const STATUS = "gateway_status_change";

/** Return the subject pattern of all events of a gateway. @param {string} key its subject */
function subjectOf(key) {
  const [, , type, id] = key.split(".");
  return `gateway.*.${type}.${id}`;
}

/** Describe an event in words. */
function describe(event) {
  const metadata = event.metadata && typeof event.metadata === "object" ? event.metadata : {};
  const fault = readFault(metadata);
  if (event.event_type !== STATUS) {
    const attempt = typeof event.attempt === "number" && event.attempt > 0 ? event.attempt : 0;
    return { summary: STRINGS.history.recovery(event.phase ?? "", attempt), fault };
  }
  const [from, to] = [readStatus(event.previous_status), readStatus(event.current_status)];
  if (from !== to) return { summary: STRINGS.history.from(statusLabel(from)), fault };
  const marks = [metadata.silenced && STRINGS.history.silenced, metadata.flapping === true && STRINGS.history.flapping].filter(Boolean);
  return { summary: marks.join(", ") || STRINGS.history.again, fault };
}

class Row {
  #duration = element("span", "past-lasted");

  /** @param {Item} item */
  constructor({ seq, event }) {
    this.seq = seq;
    this.at = parseTime(event.timestamp, NaN);
    this.latency = readLatency(event.metadata ?? {});
    this.status = event.event_type === STATUS ? readStatus(event.current_status) : "";
    this.changes = event.event_type === STATUS && event.previous_status !== event.current_status;
    const { summary, fault } = describe(event);
    const time = element("time", "past-time", fullTime(this.at).slice(5));
    time.title = fullTime(this.at);
    const mark = statusMark();
    if (this.status) mark.set(this.status);
    else mark.root.hidden = true;
    const aside = [summary, latencyText(this.latency)].filter(Boolean).join(" · ");
    this.root = element("li", "past", time, mark.root, element("span", "past-what", aside), this.#duration);
    if (fault) this.root.append(element("p", "past-fault", fault));
  }

  /** Show how long the state lasted. @param {number} until when the next one began, NaN for a row without a state */
  showDuration(until) {
    setText(this.#duration, this.changes && until >= this.at ? duration(until - this.at) : "");
  }
}

export class History {
  #root = byId("history");
  #name = element("h2", "history-name");
  #mark = statusMark();
  #close = element("button", "", `${STRINGS.history.close} `, element("kbd", "", "Esc"));
  #facts = element("dl", "history-facts");
  #bar = new StateBar("history-bar");
  #latencies = new LatencyChart();
  #chartCurrent = true;
  #probes = element("ul", "history-probes");
  #rows = element("ol", "history-rows");
  #state = element("p", "history-state");
  #older = element("button", "", STRINGS.history.older);
  /** @type {Map<number, Row>} */ #known = new Map();
  /** @type {Gateway|null} */ #gateway = null;
  #request = new AbortController();
  #until = "";
  #onItems;
  #onClose;

  /**
   * @param {(key: string, items: Item[]) => void} onItems called with the states that were loaded
   * @param {(gateway: Gateway) => void} onClose called when the panel is closed
   */
  constructor(onItems, onClose) {
    this.#onItems = onItems;
    this.#onClose = onClose;
    for (const button of [this.#close, this.#older]) button.setAttribute("type", "button");
    this.#name.id = "history-name";
    this.#state.setAttribute("role", "status");
    this.#rows.tabIndex = 0;
    this.#rows.setAttribute("aria-labelledby", "history-name");
    this.#close.addEventListener("click", () => this.close());
    this.#older.addEventListener("click", () => this.#fetch());
    this.#root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
    this.#root.append(
      element("div", "history-head", this.#name, this.#mark.root, this.#close),
      this.#facts,
      this.#probes,
      element("div", "history-chart", this.#bar.root),
      this.#latencies.root,
      this.#rows,
      element("div", "history-foot", this.#state, this.#older),
    );
  }

  /** Subject of the gateway shown; empty if the panel is closed. */
  get key() {
    return this.#gateway?.key ?? "";
  }

  /** Load the history again, because the stream was recreated and its sequences start over. */
  reload() {
    if (this.#gateway) this.open(this.#gateway, relayNow());
  }

  /** Open the history of a gateway. @param {Gateway} gateway @param {number} now */
  open(gateway, now) {
    this.#forget();
    this.#gateway = gateway;
    this.#root.hidden = false;
    this.show(gateway, now);
    // Move the focus off the tile, which the panel hides.
    if (FULLSCREEN.matches) this.#close.focus();
    this.#fetch();
  }

  /** Close the panel, also when the gateway was removed. */
  close() {
    const gateway = this.#gateway;
    if (!gateway) return;
    this.#forget();
    this.#root.hidden = true;
    this.#onClose(gateway);
  }

  /** Add an event of the feed if it concerns the gateway. @param {Item} item */
  handleEvent(item) {
    if (!this.#gateway || !item.subject.startsWith("gateway.")) return;
    const mine = subjectOf(this.#gateway.key).split(".");
    if (item.subject.split(".").every((part, i) => i === 1 || part === mine[i])) this.#add([item]);
  }

  /** Update the panel. @param {Gateway|undefined} gateway @param {number} now */
  show(gateway, now) {
    if (!this.#gateway) return;
    if (!gateway) {
      this.close();
      return;
    }
    const same = gateway === this.#gateway && this.#root.dataset.seq === String(gateway.seq);
    this.#gateway = gateway;
    this.#bar.show(gateway.history);
    if (!this.#chartCurrent) this.#latencies.show([...this.#known.values()]);
    this.#chartCurrent = true;
    this.tick(now);
    if (same) return;
    setAttribute(this.#root, "data-seq", String(gateway.seq));
    setAttribute(this.#root, "data-status", gateway.status);
    setText(this.#name, gateway.id);
    this.#mark.set(gateway.status);
    this.#probes.replaceChildren(
      ...gateway.probes.map(([name, status]) => {
        const mark = statusMark();
        mark.set(status);
        return element("li", "", element("span", "history-probe", name), mark.root);
      }),
    );
  }

  /** Update the facts, some of which depend on the time. @param {number} now */
  tick(now) {
    if (!this.#gateway) return;
    const { since, silence, flapping, type, group, fault, latency } = this.#gateway;
    const facts = [
      ["type", [type, group].filter(Boolean).join(" · ")],
      ["since", STRINGS.history.sinceFor(fullTime(since), duration(now - since))],
      ["latency", latencyText(latency)],
      ["fault", fault],
      ["alerts", silence && silence.until > now ? silenceText(silence) : ""],
      ["flapping", flapping ? STRINGS.history.flaps : ""],
    ].filter(([, text]) => text);
    const key = facts.flat().join("\n");
    if (this.#facts.dataset.key === key) return;
    this.#facts.dataset.key = key;
    this.#facts.replaceChildren(
      ...facts.map(([name, text]) => element("div", "", element("dt", "", STRINGS.history.facts[name]), element("dd", "", text))),
    );
  }

  #forget() {
    this.#request.abort();
    this.#known.clear();
    this.#chartCurrent = false;
    this.#rows.replaceChildren();
    this.#gateway = null;
    this.#until = "";
    this.#older.hidden = true;
    delete this.#root.dataset.seq;
  }

  async #fetch() {
    const { key } = this.#gateway;
    const { signal } = (this.#request = new AbortController());
    this.#older.hidden = true;
    setText(this.#state, STRINGS.history.loading);
    try {
      const page = await fetchPage({ subjects: subjectOf(key), order: "newest", limit: String(PAGE), until: this.#until }, signal);
      if (!signal.aborted) this.#addPage(key, page);
    } catch (error) {
      if (signal.aborted) return;
      this.#older.hidden = false;
      setText(this.#state, STRINGS.history.failed(sentence(error.message)));
    }
  }

  #addPage(key, { events, cursor, more, gap }) {
    this.#until = cursor;
    this.#add(events);
    const states = events.filter(({ event }) => event.event_type === STATUS).sort((a, b) => a.seq - b.seq);
    if (states.length > 0) this.#onItems(key, states);
    this.#older.hidden = !more || this.#known.size >= MAX_EVENTS;
    const end = gap ? STRINGS.history.expired : more ? "" : STRINGS.history.all;
    setText(this.#state, this.#known.size === 0 ? STRINGS.history.nothing : end);
  }

  #add(items) {
    for (const item of items) if (!this.#known.has(item.seq)) this.#known.set(item.seq, new Row(item));
    const rows = [...this.#known.values()].sort((a, b) => b.seq - a.seq).slice(0, MAX_EVENTS);
    this.#known = new Map(rows.map((row) => [row.seq, row]));
    this.#chartCurrent = false;
    let until = NaN;
    for (const row of rows) {
      row.showDuration(until);
      if (row.changes) until = row.at;
    }
    arrange(
      this.#rows,
      rows.map(({ root }) => root),
    );
  }
}
