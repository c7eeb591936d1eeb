/**
 * Connection to the relay: the client library (contracts/typescript) plus what only a page with a user needs: a prompt
 * for a token, the reason why a WebSocket failed, and a filter that changes.
 *
 * Invariants:
 * 1. Cursor, reconnects and token renewal belong to the client; a new client resumes where the previous one stopped.
 * 2. Callbacks of a replaced client are ignored.
 * 3. A filter that the relay rejects is dropped, and the page continues without it.
 */

import { connect } from "/assets/client/index.js";
import { Access } from "/assets/access.js";
import { readCursor } from "/assets/cursor.js";
import { fetchRelayTime, setRelayTime, clockOffset } from "/assets/relayclock.js";
import { STRINGS } from "/assets/strings.js";

const FEED = "/ws";
const HISTORY = "10m";
const FORBIDDEN = 4403;
const BAD_FILTER = 4409;
const EVERYTHING = [">"];

/**
 * Return whether a hidden page may keep its stream: over HTTP/1.1 a browser opens only six connections to an origin, and
 * hidden tabs would leave none for the others.
 */
const manyConnections = () => /^h[23]/.test(performance.getEntriesByType("navigation")[0]?.nextHopProtocol ?? "");

/**
 * @typedef {object} LinkState state of the connection
 * @property {"connecting"|"catching-up"|"live"|"waiting"|"closed"} phase
 * @property {string} reason why it is not live; empty if it is
 * @property {number} until time of the next attempt, in `relayNow()`; 0 unless it is scheduled
 * @property {import("/assets/access.js").PromptReason} prompt why the user has to enter a token
 * @property {import("/assets/client/client.js").Client["transport"]} transport
 */

/** @typedef {{subject: string, seq: number, event: Record<string, any>}} Item */

/**
 * @typedef {object} Handlers
 * @property {(state: LinkState) => void} onLink
 * @property {(welcome: Record<string, any>) => void} onWelcome
 * @property {() => void} onStart a session starts: an unfinished snapshot of the previous one is discarded
 * @property {(cursor: string, subscription: import("/assets/filters.js").Subscription) => void} onSubscribed a subscription takes effect
 * @property {(items: Item[]) => void} onEvents in stream order
 * @property {(items: Item[], done: boolean, start: number, missing: Record<string, number>) => void} onSnapshot one
 *   message of a snapshot as of sequence `start`, and the number of states that it lacks by family
 * @property {(gap: Record<string, any>) => void} onGap
 * @property {(upstream: {connected: boolean, since: string|null}) => void} onUpstream
 * @property {(token: import("/assets/access.js").AccessState) => void} onToken
 * @property {() => void} onEpoch the stream was recreated: sequences start over
 * @property {() => void} onDenied the token grants nothing that the filter selects
 */

export class Link {
  #handlers;
  #access;
  /** @type {import("/assets/client/client.js").Client|null} */ #client = null;
  /** @type {import("/assets/filters.js").Subscription} */ #subscription = { level: "DEBUG", subjects: [] };
  /** Subjects of the last filter that was outside of the grant. */
  #denied = "";
  #since = HISTORY;
  #start = 0;
  #epoch = "";
  /** Set until a session has started on the current socket. */
  #first = true;
  /** Close code of the relay's bye. */
  #code = 0;
  /** Failed connections in a row. */
  #failures = 0;
  /** Set while the client is closed because the page is hidden. */
  #paused = false;

  /**
   * @param {Handlers} handlers
   * @param {ConstructorParameters<typeof Access>[0]} tab token storage
   */
  constructor(handlers, tab) {
    this.#handlers = handlers;
    this.#access = new Access(tab, {
      onChange: (state) => handlers.onToken(state),
      onPrompt: () => this.#client && this.#publish(this.#client.state),
    });
    // A page in the back/forward cache must not keep its socket open.
    window.addEventListener("pagehide", () => this.#client?.close());
    window.addEventListener("pageshow", (event) => event.persisted && this.#client?.reconnect());
    document.addEventListener("visibilitychange", () => this.#pauseOrResume());
  }

  /** Connect immediately. */
  connect() {
    if (this.#client && this.#code !== BAD_FILTER) this.#client.reconnect();
    else this.#open(null);
  }

  /** Close a stream while the page is hidden, and continue it afterwards. */
  #pauseOrResume() {
    const client = this.#client;
    if (document.hidden && client?.transport === "stream" && client.state.phase !== "closed" && !manyConnections()) {
      this.#paused = true;
      client.close();
    } else if (!document.hidden && this.#paused) {
      this.#paused = false;
      client?.reconnect();
    }
  }

  /** Change the subscription. @param {import("/assets/filters.js").Subscription} subscription */
  subscribe(subscription) {
    this.#subscription = subscription;
    this.#client?.setFilter(this.#filter());
  }

  /**
   * Use a token: renew the running session with it, or start a new one.
   * @param {string} text as entered by the user
   */
  authenticate(text) {
    const running = this.#running;
    if (!this.#access.offer(text, running)) return;
    if (running) this.#client?.renew();
    // The token may grant less: a new client requests a complete snapshot.
    else this.#open(this.#client?.cursor ?? null);
  }

  get #running() {
    return ["live", "catching-up"].includes(this.#client?.state.phase ?? "");
  }

  #filter() {
    const { level, subjects } = this.#subscription;
    const denied = this.#denied !== "" && subjects.join() === this.#denied;
    return { level, subjects: subjects.length > 0 && !denied ? subjects : EVERYTHING };
  }

  /** Replace the client. @param {string|null} cursor where to resume */
  #open(cursor) {
    const previous = this.#client;
    this.#client = null;
    previous?.close();
    this.#code = 0;
    const client = connect(FEED, {
      ...this.#filter(),
      since: this.#since,
      token: () => this.#access.token(this.#running),
      cursorStore: { load: () => cursor, save: () => {} },
    });
    this.#client = client;
    const ifCurrent = (handle) => (value) => client === this.#client && handle(value);
    client.onState(ifCurrent((state) => this.#changed(state)));
    client.onRenewal(ifCurrent((token) => this.#access.accepted(token)));
    client.onMessage(ifCurrent((message) => this.#receive(message)));
    client.onUpstream(ifCurrent((upstream) => this.#handlers.onUpstream(upstream)));
  }

  #receive(message) {
    if (!this.#filterDenied(message)) this.#access.receive(message);
    switch (message.type) {
      case "welcome":
        this.#failures = 0;
        fetchRelayTime();
        this.#handlers.onWelcome(message);
        this.#pauseOrResume();
        break;
      case "subscribed":
        this.#subscribed(message);
        break;
      case "snapshot":
        this.#handlers.onSnapshot(message.events, message.done, this.#start, message.truncated_by ?? {});
        break;
      case "events":
        this.#enter(message.cursor);
        if (message.events.length > 0) this.#handlers.onEvents(message.events);
        break;
      case "gap":
        this.#handlers.onGap(message);
        if (message.reason === "reset") this.#enter(message.to);
        break;
      case "heartbeat":
        setRelayTime(message.time);
        break;
      case "bye":
        this.#code = message.code;
        break;
      default: // Handled by the client, or of a later version.
    }
  }

  #subscribed({ cursor, level, subjects }) {
    this.#start = readCursor(cursor).seq;
    // If we have a position already, a gap announces that the stream was recreated.
    if (!this.#epoch) this.#enter(cursor);
    if (this.#first) this.#handlers.onStart();
    this.#handlers.onSubscribed(cursor, { level, subjects });
    if (this.#first && this.#access.offered) this.#client?.renew();
    this.#first = false;
  }

  #enter(cursor) {
    const { epoch } = readCursor(cursor);
    if (epoch === this.#epoch) return;
    if (this.#epoch) this.#handlers.onEpoch();
    this.#epoch = epoch;
  }

  /** Return whether the relay closed the session because the filter is outside of the grant. */
  #filterDenied({ type, code }) {
    return type === "bye" && code === FORBIDDEN && !this.#access.offered && this.#filter().subjects !== EVERYTHING;
  }

  #changed(state) {
    const { phase } = state;
    if ((phase === "reconnecting" && state.retryAt === null) || phase === "connecting") {
      this.#first = true;
      this.#code = 0;
    }
    if (this.#paused) {
      this.#publish(state);
    } else if (phase === "closed" && this.#access.tokenStillValid) {
      // The relay rejected the next token, but the session's own one is still valid.
      this.#open(this.#client?.cursor ?? null);
    } else if (phase === "closed" && this.#filterDenied({ type: "bye", code: this.#code })) {
      this.#denied = this.#subscription.subjects.join();
      this.#handlers.onDenied();
      this.#open(this.#client?.cursor ?? null);
    } else if (phase === "closed" && this.#code === BAD_FILTER && this.#since && !this.#client?.cursor) {
      // The relay has no history: continue with live events only.
      this.#since = "";
      this.#open(null);
    } else {
      if (phase === "reconnecting" && state.retryAt !== null && this.#code === 0 && this.#first) this.#explain(state);
      this.#publish(state);
    }
  }

  /** Find out why the WebSocket failed: a browser does not say, but a plain request shows it. */
  async #explain(state) {
    const client = this.#client;
    this.#failures += 1;
    const { status, reason } = await this.#access.probe();
    // A relay that responds now may just have started: report it only if the WebSocket fails again.
    const known = status !== 200 || this.#failures > 1;
    if (known && client === this.#client && client?.state === state) this.#publish({ ...state, reason });
  }

  #publish(state) {
    const { prompt, reason } = this.#access;
    const running = this.#running;
    const waiting = state.phase === "reconnecting" && (state.retryAt !== null || navigator.onLine === false);
    const attempt = state.phase === "reconnecting" ? "connecting" : state.phase;
    const phase = prompt && !running ? "closed" : waiting ? "waiting" : attempt;
    this.#handlers.onLink({
      phase,
      reason: prompt ? reason : this.#paused ? STRINGS.link.paused : state.reason,
      until: phase === "waiting" && state.retryAt ? state.retryAt - clockOffset() : 0,
      prompt: running ? "" : prompt,
      transport: this.#client?.transport ?? "websocket",
    });
  }
}
