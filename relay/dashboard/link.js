/**
 * The link to the relay: the client of this project (contracts/typescript), with what only a page with a reader
 * needs: a token that is asked for, why no socket comes about, and a filter that the reader changes.
 *
 * Invariants:
 * 1. Place, return and renewal are the client's; another one begins where the one before it stood.
 * 2. What a client says after it was replaced is ignored.
 * 3. A filter that the relay refuses costs that filter and not the page.
 */

import { connect } from "/assets/client/index.js";
import { Access } from "/assets/access.js";
import { readCursor } from "/assets/cursor.js";
import { askTime, heardTime, offset } from "/assets/present.js";

const FEED = "/ws";
const HISTORY = "10m";
const FORBIDDEN = 4403;
const BAD_FILTER = 4409;
const EVERYTHING = [">"];

/**
 * @typedef {object} Standing how the page stands with the relay
 * @property {"connecting"|"catching-up"|"live"|"waiting"|"closed"} phase
 * @property {string} reason why it is not live; empty when it is
 * @property {number} until when the next attempt starts, in `present()`; 0 unless one waits for its time
 * @property {import("/assets/access.js").Ask} ask a new token is what would help, and why
 */

/** @typedef {{subject: string, seq: number, event: Record<string, any>}} Item */

/**
 * @typedef {object} Handlers
 * @property {(standing: Standing) => void} onLink
 * @property {(welcome: Record<string, any>) => void} onWelcome
 * @property {() => void} onStart a session begins; what a snapshot before it left unfinished does not count
 * @property {(cursor: string, ask: import("/assets/filters.js").Ask) => void} onAsked from a place on a filter holds
 * @property {(items: Item[]) => void} onEvents in stream order
 * @property {(items: Item[], done: boolean, start: number) => void} onSnapshot complete as of sequence `start`
 * @property {(gap: Record<string, any>) => void} onGap
 * @property {(upstream: {connected: boolean, since: string|null}) => void} onUpstream
 * @property {(token: import("/assets/access.js").AccessState) => void} onToken
 * @property {() => void} onEpoch the stream is another one: sequences start anew
 * @property {() => void} onDenied this page is granted nothing of what the filter asks for
 */

export class Link {
  #handlers;
  #access;
  /** @type {import("/assets/client/client.js").Client|null} */ #client = null;
  /** @type {import("/assets/filters.js").Ask} */ #wanted = { level: "DEBUG", subjects: [] };
  /** Subjects that are not asked for again. */
  #denied = "";
  #since = HISTORY;
  #start = 0;
  #epoch = "";
  /** No session has begun on the present socket. */
  #first = true;
  /** What the relay said before it closed. */
  #code = 0;
  /** Sockets in a row that did not come about. */
  #failed = 0;

  /**
   * @param {Handlers} handlers
   * @param {ConstructorParameters<typeof Access>[0]} tab where the token is kept
   */
  constructor(handlers, tab) {
    this.#handlers = handlers;
    this.#access = new Access(tab, {
      onChange: (state) => handlers.onToken(state),
      onAsk: () => this.#client && this.#tell(this.#client.state),
    });
    // A page that a browser keeps for a step back must not keep its socket.
    window.addEventListener("pagehide", () => this.#client?.close());
    window.addEventListener("pageshow", (event) => event.persisted && this.#client?.reconnect());
  }

  /** Connect now, whatever is going on. */
  connect() {
    if (this.#client && this.#code !== BAD_FILTER) this.#client.reconnect();
    else this.#begin(null);
  }

  /** Follow something else from here on. @param {import("/assets/filters.js").Ask} ask */
  want(ask) {
    this.#wanted = ask;
    this.#client?.setFilter(this.#filter());
  }

  /**
   * Use a token: a session that runs goes on with it, otherwise one begins.
   * @param {string} text as the reader gave it
   */
  authenticate(text) {
    const running = this.#running;
    if (!this.#access.offer(text, running)) return;
    if (running) this.#client?.renew();
    // What it shows may be less: another client asks how things stand.
    else this.#begin(this.#client?.cursor ?? null);
  }

  get #running() {
    return ["live", "catching-up"].includes(this.#client?.state.phase ?? "");
  }

  #filter() {
    const { level, subjects } = this.#wanted;
    const denied = this.#denied !== "" && subjects.join() === this.#denied;
    return { level, subjects: subjects.length > 0 && !denied ? subjects : EVERYTHING };
  }

  /** @param {string|null} cursor where to go on */
  #begin(cursor) {
    const before = this.#client;
    this.#client = null;
    before?.close();
    this.#code = 0;
    const client = connect(FEED, {
      ...this.#filter(),
      since: this.#since,
      token: () => this.#access.token(this.#running),
      cursorStore: { load: () => cursor, save: () => {} },
    });
    this.#client = client;
    const mine = (handle) => (what) => client === this.#client && handle(what);
    client.onState(mine((state) => this.#changed(state)));
    client.onRenewal(mine((token) => this.#access.taken(token)));
    client.onMessage(mine((message) => this.#receive(message)));
    client.onUpstream(mine((upstream) => this.#handlers.onUpstream(upstream)));
  }

  #receive(message) {
    if (!this.#overstepped(message)) this.#access.hear(message);
    switch (message.type) {
      case "welcome":
        this.#failed = 0;
        askTime();
        this.#handlers.onWelcome(message);
        break;
      case "subscribed":
        this.#subscribed(message);
        break;
      case "snapshot":
        this.#handlers.onSnapshot(message.events, message.done, this.#start);
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
        heardTime(message.time);
        break;
      case "bye":
        this.#code = message.code;
        break;
      default: // What the client minds by itself, and types of later versions.
    }
  }

  #subscribed({ cursor, level, subjects }) {
    this.#start = readCursor(cursor).seq;
    // With a place of our own, a gap that tells of another stream is yet to come.
    if (!this.#epoch) this.#enter(cursor);
    if (this.#first) this.#handlers.onStart();
    this.#handlers.onAsked(cursor, { level, subjects });
    if (this.#first && this.#access.offered) this.#client?.renew();
    this.#first = false;
  }

  #enter(cursor) {
    const { epoch } = readCursor(cursor);
    if (epoch === this.#epoch) return;
    if (this.#epoch) this.#handlers.onEpoch();
    this.#epoch = epoch;
  }

  /** The relay ends the session because the filter's subjects lie outside of its grant. */
  #overstepped({ type, code }) {
    return type === "bye" && code === FORBIDDEN && !this.#access.offered && this.#filter().subjects !== EVERYTHING;
  }

  #changed(state) {
    const { phase } = state;
    if ((phase === "reconnecting" && state.retryAt === null) || phase === "connecting") {
      this.#first = true;
      this.#code = 0;
    }
    if (phase === "closed" && this.#access.kept) {
      // The next token was refused, and the one that the session came with is still good.
      this.#begin(this.#client?.cursor ?? null);
    } else if (phase === "closed" && this.#overstepped({ type: "bye", code: this.#code })) {
      this.#denied = this.#wanted.subjects.join();
      this.#handlers.onDenied();
      this.#begin(this.#client?.cursor ?? null);
    } else if (phase === "closed" && this.#code === BAD_FILTER && this.#since && !this.#client?.cursor) {
      // This relay gives no history: what comes from now on is still worth showing.
      this.#since = "";
      this.#begin(null);
    } else {
      if (phase === "reconnecting" && state.retryAt !== null && this.#code === 0 && this.#first) this.#explain(state);
      this.#tell(state);
    }
  }

  /** A browser does not say why no socket came about; a request does. */
  async #explain(state) {
    const client = this.#client;
    this.#failed += 1;
    const { status, reason } = await this.#access.knock();
    // One that answers now may have started meanwhile.
    const known = status !== 200 || this.#failed > 1;
    if (known && client === this.#client && client?.state === state) this.#tell({ ...state, reason });
  }

  #tell(state) {
    const { ask, reason } = this.#access;
    const running = this.#running;
    const waits = state.phase === "reconnecting" && (state.retryAt !== null || navigator.onLine === false);
    const attempt = state.phase === "reconnecting" ? "connecting" : state.phase;
    const phase = ask && !running ? "closed" : waits ? "waiting" : attempt;
    this.#handlers.onLink({
      phase,
      reason: ask ? reason : state.reason,
      until: phase === "waiting" && state.retryAt ? state.retryAt - offset() : 0,
      ask: running ? "" : ask,
    });
  }
}
