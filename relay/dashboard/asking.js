/**
 * The log's filter, as every socket of this page asks for it.
 *
 * The connection opens sockets and renews them without knowing of filters. What it opens is this class: a
 * WebSocket that puts the filter into its address and into each `subscribe`, and sends one when it changes.
 *
 * Invariants:
 * 1. From the first frame on a socket brings what the filter wants, also after a return.
 * 2. Who waits for an answer gets its own: one to a change of the filter is kept from the connection while it
 *    waits for another.
 */

import { covers } from "/assets/filters.js";
import { readCursor } from "/assets/place.js";

/** @typedef {import("/assets/filters.js").Ask} Ask */

/** Characters of the longest answer; anything longer is a frame of events, and not read twice. */
const ANSWER = 64 * 1024;
const IS_ANSWER = /"type":\s*"(subscribed|error)"/;

/** @type {Ask} */ let wanted = { level: "DEBUG", subjects: "" };
/** @type {AskingSocket|null} */ let current = null;
/** @type {(cursor: string, ask: Ask) => void} */ let onAsked = () => {};

const same = (a, b) => a.level === b.level && a.subjects === b.subjects;

class AskingSocket extends WebSocket {
  #ready = false;
  #inForce = wanted;
  /** @type {{ask: Ask|null, own: boolean}[]} */ #unanswered = [];

  constructor(address, protocols) {
    const url = new URL(address);
    if (wanted.subjects) url.searchParams.set("subjects", wanted.subjects);
    if (wanted.level !== "DEBUG") url.searchParams.set("level", wanted.level);
    super(url, protocols);
    current = this;
    // Before whoever sets `onmessage`.
    this.addEventListener("message", (event) => this.#hear(event));
  }

  send(data) {
    const message = JSON.parse(data);
    if (message.type === "subscribe") this.#subscribe(message, false);
    else {
      if (message.type === "auth") this.#unanswered.push({ ask: null, own: false });
      super.send(data);
    }
  }

  /** Ask for what is wanted by now, when it is something else. */
  catchUp() {
    const last = this.#unanswered.findLast(({ ask }) => ask)?.ask ?? this.#inForce;
    if (this.#ready && this.readyState === WebSocket.OPEN && !same(last, wanted)) this.#subscribe({ type: "subscribe" }, true);
  }

  #subscribe(message, own) {
    const { level, subjects } = wanted;
    this.#unanswered.push({ ask: wanted, own });
    super.send(JSON.stringify({ ...message, level, ...(subjects && { subjects: subjects.split(",") }) }));
  }

  #hear(event) {
    const { data } = event;
    if (typeof data !== "string" || data.length > ANSWER || !IS_ANSWER.test(data)) return;
    const message = JSON.parse(data);
    if (message.type === "error" && message.ref === "auth") {
      const index = this.#unanswered.findIndex(({ ask }) => !ask);
      if (index >= 0) this.#unanswered.splice(index, 1);
    }
    if (message.type !== "subscribed") return;
    const answered = this.#ready ? this.#unanswered.shift() : undefined;
    this.#ready = true;
    if (answered?.ask) this.#inForce = answered.ask;
    if (answered?.own && this.#unanswered.some(({ own }) => !own)) event.stopImmediatePropagation();
    onAsked(message.cursor, this.#inForce);
    this.catchUp();
  }
}

/**
 * Have every socket of this page ask for what the log wants; before the first is opened.
 * @param {(cursor: string, ask: Ask) => void} listener told from which place on which filter holds
 */
export function begin(listener) {
  onAsked = listener;
  window.WebSocket = AskingSocket;
}

/** Want something else from here on. @param {Ask} ask */
export function want(ask) {
  wanted = ask;
  current?.catchUp();
}

/** What was asked for where, and what is missing once more is wanted. */
export class Asked {
  /** @type {{from: string, ask: Ask}[]} */ #stretches = [];

  /**
   * From a place on, a filter holds.
   * @param {string} cursor
   * @param {Ask} ask
   * @returns {Record<string, any>|null} a gap, when before it less was asked for
   */
  from(cursor, ask) {
    const { epoch, seq } = readCursor(cursor);
    const last = this.#stretches.at(-1);
    if (!last || readCursor(last.from).epoch !== epoch) {
      this.#stretches = [{ from: cursor, ask }];
      return null;
    }
    if (same(last.ask, ask)) return null;
    let missing = "";
    while (this.#stretches.length > 0 && !covers(this.#stretches.at(-1).ask, ask)) missing = this.#stretches.pop().from;
    this.#stretches.push({ from: missing || cursor, ask });
    return missing && readCursor(missing).seq < seq ? { from: missing, to: cursor, reason: "filter", ask } : null;
  }
}
