/**
 * The link to the relay: one WebSocket at a time, its token, its cursor, and its return after a loss.
 *
 * Invariants:
 * 1. The cursor only moves to what the relay named, and only after what lies before it was handed on: leaving at
 *    any moment and coming back with it loses nothing and repeats nothing.
 * 2. An event whose sequence was handed on is never handed on again within one epoch.
 * 3. A link that says nothing for longer than the heartbeat plus ten seconds is dead, whatever the socket says.
 * 4. Whatever arrives on a socket that was given up is ignored.
 * 5. No socket is opened without a token where the relay wants one, and none twice with a token it refused.
 */

import { Access, knock, readToken } from "/assets/access.js";
import { closeRule, waitBefore } from "/assets/closing.js";
import { Place, readCursor } from "/assets/place.js";

const PROTOCOL = "tickertape.v1";
const HISTORY = "10m";
const DEAD_AFTER_HEARTBEAT_MS = 10_000;
const OPENING_MS = 10_000;
const STABLE_MS = 10_000;
const CHECK_MS = 1_000;
const NO_TOKEN = "what was given is no token: that is three parts with dots between them";

/**
 * @typedef {object} Link
 * @property {"connecting"|"live"|"waiting"|"closed"} phase
 * @property {string} reason why it is not live; empty when it is
 * @property {number} until when the next attempt starts, UNIX milliseconds; 0 unless waiting
 * @property {import("/assets/access.js").Ask} ask a new token is what would help, and why
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
 * @property {(token: import("/assets/access.js").AccessState) => void} onToken
 * @property {() => void} onEpoch the stream is another one: sequences start anew
 */

export class Connection {
  /** @type {WebSocket|null} */ #socket = null;
  #handlers;
  #access;
  #open = false;
  #knocking = new AbortController();
  /** Answers that are to come. @type {("snapshot"|"token")[]} */ #awaited = [];
  #place;
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
  /** @type {Link} */ #link = { phase: "connecting", reason: "", until: 0, ask: "" };

  /**
   * @param {Handlers} handlers
   * @param {ConstructorParameters<typeof Access>[0]} tab where the token is kept
   */
  constructor(handlers, tab) {
    this.#handlers = handlers;
    this.#access = new Access(tab, (state) => handlers.onToken(state));
    this.#place = new Place(() => this.#forget());
    setInterval(() => this.#check(), CHECK_MS);
    window.addEventListener("online", () => this.#link.phase === "waiting" && this.connect());
    window.addEventListener("pagehide", () => this.#socket?.close(1000));
    window.addEventListener("pageshow", (event) => event.persisted && this.connect());
  }

  /** Connect now, whatever is going on. */
  connect() {
    this.#drop();
    this.#welcomed = false;
    this.#asked = false;
    this.#awaited = [];
    this.#bye = null;
    this.#heard = Date.now();
    this.#heartbeatMs = 0;
    this.#say("connecting", this.#link.reason);
    if (this.#access.token || this.#open) this.#dial();
    else this.#knock();
  }

  /**
   * Use a token: a session that runs goes on with it, otherwise one begins.
   * @param {string} text as the reader gave it
   */
  authenticate(text) {
    const token = readToken(text);
    const live = this.#link.phase === "live";
    if (!token && live) this.#access.notTaken(NO_TOKEN);
    else if (!token) this.#ask("refused", NO_TOKEN);
    else if (live) {
      this.#access.offer(token);
      this.#renew();
    } else {
      this.#begun(token);
    }
  }

  /** Connect with another token: what it shows may be less. */
  #begun(token) {
    this.#access.use(token);
    this.#needSnapshot = true;
    this.#attempt = 0;
    this.connect();
  }

  async #knock() {
    const { signal } = (this.#knocking = new AbortController());
    try {
      const answer = await knock(signal);
      if (signal.aborted) return;
      this.#open = answer === "open";
      if (answer === "token") this.#ask("first", "");
      else this.#dial();
    } catch {
      if (!signal.aborted) this.#retry("the relay does not answer");
    }
  }

  #dial() {
    const { token } = this.#access;
    let socket;
    try {
      socket = new WebSocket(this.#url(), token ? [PROTOCOL, `bearer.${token}`] : [PROTOCOL]);
    } catch {
      // What the browser says of it would show the token.
      this.#ask("refused", NO_TOKEN);
      return;
    }
    this.#socket = socket;
    socket.onmessage = (message) => socket === this.#socket && this.#receive(message.data);
    socket.onclose = (event) => socket === this.#socket && this.#closed(event.code, event.reason);
  }

  #renew() {
    this.#awaited.push("token");
    this.#socket.send(JSON.stringify({ type: "auth", token: this.#access.next }));
  }

  #url() {
    const url = new URL("/ws", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (this.#place.cursor) url.searchParams.set("cursor", this.#place.cursor);
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
        this.#access.begin(message.expires_at);
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
        if (message.reason === "reset") this.#place.reach(message.to);
        break;
      case "heartbeat":
        this.#askForSnapshot();
        this.#place.reach(message.cursor);
        break;
      case "upstream":
        this.#handlers.onUpstream(message.state, message.since);
        break;
      case "token_expiring":
        this.#access.warn(message.expires_at);
        break;
      case "error":
        // Any other is followed by `bye` where it matters.
        if (message.ref === "auth" && message.code === "unavailable") {
          this.#awaited = this.#awaited.filter((what) => what !== "token");
          this.#access.notTaken(message.message);
        }
        break;
      case "bye":
        this.#bye = { reason: message.reason ?? "", retryAfterMs: message.retry_after_ms ?? null };
        break;
      default: // Types of later versions are not for this page.
    }
  }

  #subscribed(message) {
    this.#start = readCursor(message.cursor).seq;
    // With a cursor of our own, the relay's start may lie beyond a gap that is yet to be told.
    if (!this.#place.cursor) this.#place.reach(message.cursor);
    if (this.#link.phase === "live") {
      if (this.#awaited.shift() === "token") this.#access.taken(message.expires_at);
      return;
    }
    this.#liveSince = Date.now();
    this.#handlers.onStart(this.#start);
    this.#say("live", "");
    if (message.resumed) this.#askForSnapshot();
    if (this.#access.next) this.#renew();
  }

  /** After `since` or a cursor there may be no snapshot; gateways that did not change lately come only in one. */
  #askForSnapshot() {
    if (!this.#needSnapshot || this.#asked) return;
    this.#asked = true;
    this.#awaited.push("snapshot");
    this.#socket.send(JSON.stringify({ type: "subscribe" }));
  }

  #events(message, bytes) {
    const fresh = this.#place.take(message.events, message.cursor);
    if (fresh.length > 0) this.#handlers.onEvents(fresh, bytes / message.events.length);
    this.#place.reach(message.cursor);
  }

  #forget() {
    this.#handlers.onEpoch();
    this.#needSnapshot = true;
    this.#asked = false;
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
    const { token, next, proven } = this.#access;
    if (this.#awaited.includes("token") && code >= 4400 && code <= 4429) {
      if (code === 4401 && this.#access.endsBy(Date.now())) {
        this.#begun(next);
        return;
      }
      // The one that it came with is still good.
      this.#access.notTaken(reason);
      if (rule.next !== "backoff") {
        this.connect();
        return;
      }
    }
    if (rule.next === "token" || (code === 4408 && !token && !this.#welcomed)) {
      this.#open = false;
      this.#ask(!token ? "first" : proven ? "ended" : "refused", token ? reason : "");
    } else if (code === 4403 && token) {
      this.#ask("nothing", reason);
    } else if (code === 4409 && !this.#place.cursor && this.#history) {
      // This relay gives no history: what comes from now on is still worth showing.
      this.#history = false;
      this.connect();
    } else if (rule.next === "never") {
      this.#drop();
      if (code === 4409) this.#place.leave();
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
    this.#knocking.abort();
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  /** Ask the reader for a token; the one that there is does not help. */
  #ask(why, reason) {
    this.#drop();
    this.#access.forget();
    this.#say("closed", reason, 0, why);
  }

  #say(phase, reason, until = 0, ask = "") {
    this.#link = { phase, reason, until, ask };
    this.#handlers.onLink(this.#link);
  }
}
