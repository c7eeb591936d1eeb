/**
 * The link to the relay: one WebSocket at a time, its cursor, and its return after a loss.
 *
 * Invariants:
 * 1. The cursor only moves to what the relay named, and only after what lies before it was handed on: leaving at
 *    any moment and coming back with it loses nothing and repeats nothing.
 * 2. An event whose sequence was handed on is never handed on again within one epoch.
 * 3. A link that says nothing for longer than the heartbeat plus ten seconds is dead, whatever the socket says.
 * 4. Whatever arrives on a socket that was given up is ignored.
 */

import { closeRule, waitBefore } from "/assets/closing.js";

const PROTOCOL = "tickertape.v1";
const HISTORY = "10m";
const DEAD_AFTER_HEARTBEAT_MS = 10_000;
const OPENING_MS = 10_000;
const STABLE_MS = 10_000;
const CHECK_MS = 1_000;

/**
 * @typedef {object} Link
 * @property {"connecting"|"live"|"waiting"|"closed"} phase
 * @property {string} reason why it is not live; empty when it is
 * @property {number} until when the next attempt starts, UNIX milliseconds; 0 unless waiting
 * @property {boolean} needsToken a new token is what would help
 */

/**
 * @typedef {object} Item
 * @property {string} subject
 * @property {number} seq
 * @property {Record<string, unknown>} event
 */

/**
 * @typedef {object} Handlers
 * @property {(link: Link) => void} onLink
 * @property {(relay: Record<string, any>) => void} onWelcome
 * @property {(start: number) => void} onStart history or live events follow; `start` is their place
 * @property {(items: Item[], bytes: number) => void} onEvents new events in stream order, `bytes` each on average
 * @property {(items: Item[], done: boolean, start: number) => void} onSnapshot complete as of sequence `start`
 * @property {(gap: Record<string, any>) => void} onGap
 * @property {(state: string, since: string) => void} onUpstream
 * @property {() => void} onEpoch the stream is another one: sequences start anew
 */

/** Split a cursor into epoch and sequence. */
function readCursor(cursor) {
  const dash = cursor.lastIndexOf("-");
  return { epoch: cursor.slice(0, dash), seq: Number(cursor.slice(dash + 1)) };
}

export class Connection {
  /** @type {WebSocket|null} */ #socket = null;
  #handlers;
  #token = "";
  #cursor = "";
  #epoch = "";
  #lastSeq = 0;
  #start = 0;
  #history = true;
  #needSnapshot = true;
  #asked = false;
  #attempt = 0;
  #heartbeatMs = 0;
  #heard = 0;
  #liveSince = 0;
  #welcomed = false;
  /** @type {{reason: string, retryAfterMs: number|null}|null} */ #bye = null;
  #timer = 0;
  /** @type {Link} */ #link = { phase: "connecting", reason: "", until: 0, needsToken: false };

  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.#handlers = handlers;
    setInterval(() => this.#check(), CHECK_MS);
    window.addEventListener("online", () => this.#link.phase === "waiting" && this.connect());
    window.addEventListener("pagehide", () => this.#socket?.close(1000));
    window.addEventListener("pageshow", (event) => event.persisted && this.connect());
  }

  /** The place reached, as the relay named it; empty before the first. */
  get cursor() {
    return this.#cursor;
  }

  /** Connect now, whatever is going on. */
  connect() {
    this.#drop();
    this.#welcomed = false;
    this.#asked = false;
    this.#bye = null;
    this.#heard = Date.now();
    this.#heartbeatMs = 0;
    this.#say("connecting", this.#link.reason);
    const protocols = this.#token ? [PROTOCOL, `bearer.${this.#token}`] : [PROTOCOL];
    let socket;
    try {
      socket = new WebSocket(this.#url(), protocols);
    } catch (error) {
      this.#say("closed", `the browser refused to connect: ${error.message}`, 0, true);
      return;
    }
    this.#socket = socket;
    socket.onmessage = (message) => socket === this.#socket && this.#receive(message.data);
    socket.onclose = (event) => socket === this.#socket && this.#closed(event.code, event.reason);
  }

  /**
   * Use a token from here on, and connect with it.
   * @param {string} token
   */
  authenticate(token) {
    this.#token = token;
    this.#attempt = 0;
    this.connect();
  }

  #url() {
    const url = new URL("/ws", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (this.#cursor) url.searchParams.set("cursor", this.#cursor);
    else if (this.#history) url.searchParams.set("since", HISTORY);
    return url;
  }

  #receive(data) {
    this.#heard = Date.now();
    if (typeof data !== "string") return;
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      this.#retry("the relay sent a message that is not JSON");
      return;
    }
    switch (message.type) {
      case "welcome":
        this.#welcomed = true;
        this.#heartbeatMs = message.heartbeat_ms;
        this.#handlers.onWelcome(message);
        break;
      case "subscribed":
        this.#subscribed(message);
        break;
      case "snapshot":
        this.#asked = true;
        if (message.done) this.#needSnapshot = false;
        this.#handlers.onSnapshot(message.events, message.done, this.#start);
        break;
      case "events":
        this.#askForSnapshot();
        this.#events(message, data.length);
        break;
      case "gap":
        this.#handlers.onGap(message);
        // Events within the range can come behind the gap: its end is a place only after a reset.
        if (message.reason === "reset") this.#reach(message.to);
        break;
      case "heartbeat":
        this.#askForSnapshot();
        this.#reach(message.cursor);
        break;
      case "upstream":
        this.#handlers.onUpstream(message.state, message.since);
        break;
      case "bye":
        this.#bye = { reason: message.reason ?? "", retryAfterMs: message.retry_after_ms ?? null };
        break;
      default: // An `error` is followed by `bye` where it matters; types of later versions are not for this page.
    }
  }

  #subscribed(message) {
    this.#start = readCursor(message.cursor).seq;
    // With a cursor of our own, the relay's start may lie beyond a gap that is yet to be told.
    if (!this.#cursor) this.#reach(message.cursor);
    if (this.#link.phase === "live") return;
    this.#liveSince = Date.now();
    this.#handlers.onStart(this.#start);
    this.#say("live", "");
  }

  /** After `since` or a cursor there may be no snapshot; gateways that did not change lately come only in one. */
  #askForSnapshot() {
    if (!this.#needSnapshot || this.#asked) return;
    this.#asked = true;
    this.#socket.send(JSON.stringify({ type: "subscribe" }));
  }

  #events(message, bytes) {
    const { epoch } = readCursor(message.cursor);
    if (epoch !== this.#epoch) this.#begin(epoch);
    const fresh = message.events.filter((item) => item.seq > this.#lastSeq);
    if (fresh.length > 0) {
      this.#lastSeq = fresh[fresh.length - 1].seq;
      this.#handlers.onEvents(fresh, bytes / message.events.length);
    }
    this.#reach(message.cursor);
  }

  #reach(cursor) {
    const { epoch } = readCursor(cursor);
    if (epoch !== this.#epoch) this.#begin(epoch);
    this.#cursor = cursor;
  }

  #begin(epoch) {
    if (this.#epoch) {
      this.#handlers.onEpoch();
      this.#needSnapshot = true;
      this.#asked = false;
    }
    this.#epoch = epoch;
    this.#lastSeq = 0;
  }

  #check() {
    const silent = Date.now() - this.#heard;
    if (this.#link.phase === "connecting" && silent > OPENING_MS) {
      this.#retry("the relay does not answer");
    } else if (this.#link.phase === "live" && silent > this.#heartbeatMs + DEAD_AFTER_HEARTBEAT_MS) {
      this.#retry(`nothing was heard for ${Math.round(silent / 1000)} s`);
    }
    if (this.#link.phase === "live" && Date.now() - this.#liveSince > STABLE_MS) this.#attempt = 0;
  }

  #closed(code, text) {
    const bye = this.#bye;
    const rule = closeRule(code);
    const reason = bye?.reason || text || rule.meaning;
    const withoutToken = !this.#token && !this.#welcomed;
    if (rule.next === "token" || (code === 4408 && withoutToken)) {
      this.#drop();
      this.#say("closed", reason, 0, true);
    } else if (code === 4409 && !this.#cursor && this.#history) {
      // This relay gives no history: what comes from now on is still worth showing.
      this.#history = false;
      this.connect();
    } else if (rule.next === "never") {
      this.#drop();
      this.#cursor = code === 4409 ? "" : this.#cursor;
      this.#say("closed", reason);
    } else {
      this.#retry(reason, bye?.retryAfterMs ?? null);
    }
  }

  #retry(reason, retryAfterMs = null) {
    this.#drop();
    const wait = waitBefore(this.#attempt, retryAfterMs);
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.connect(), wait);
    this.#say("waiting", reason, Date.now() + wait);
  }

  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #say(phase, reason, until = 0, needsToken = false) {
    this.#link = { phase, reason, until, needsToken };
    this.#handlers.onLink(this.#link);
  }
}
