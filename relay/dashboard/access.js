/**
 * What lets this page in: its token, when that ends, and the next one.
 *
 * Invariants:
 * 1. A token that the relay refused is never shown to it again: it is forgotten before anything else is tried.
 * 2. While a session runs, its token counts until the relay took the next one; a next one that is refused
 *    costs nothing but a connection.
 * 3. A token goes to the relay as a subprotocol or in a message, never in an address, and never into a text.
 */

import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

/** As the relay takes them. */
const LONGEST = 16 * 1024;

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;

const [UNAUTHORIZED, FORBIDDEN, TIMEOUT] = [4401, 4403, 4408];

/**
 * @typedef {""|"first"|"refused"|"ended"|"nothing"} Ask why the reader is asked for a token: there is none, the
 *   relay does not take it, it was good and is not any more, it grants nothing here
 */

/**
 * @typedef {object} AccessState
 * @property {boolean} held there is a token
 * @property {number} endsAt when the session's token ends, UNIX milliseconds; 0 without an end
 * @property {boolean} expiring the relay says that it ends soon
 * @property {string} refusal why the next token was not taken; empty when none was refused
 */

/**
 * Read what a reader pasted.
 * @param {string} text a token, also with the `Bearer` of a header before it
 * @returns {string} empty when it cannot be a token
 */
export function readToken(text) {
  const token = text.trim().replace(/^bearer\s+/i, "");
  return token.length <= LONGEST && TOKEN.test(token) ? token : "";
}

export class Access {
  #tab;
  #onChange;
  #onAsk;
  /** The relay wants no token. */
  #open = false;
  #welcomed = false;
  /** A session ran with this token: when it is refused now, it has ended. */
  #proven = false;
  #authRefused = false;
  /** @type {AccessState} */ #state = { held: false, endsAt: 0, expiring: false, refusal: "" };

  /** The token that the relay is to take in a running session; empty when there is none. */
  offered = "";

  /** Nothing goes on without the reader. @type {Ask} */
  ask = "";

  /** Why, in the relay's words. */
  reason = "";

  /** The session ended over the next token, and the one that it came with is still good. */
  kept = false;

  /**
   * @param {{read: () => string, keep: (token: string) => void, forget: () => void}} tab keeps it; see token.js
   * @param {{onChange: (state: AccessState) => void, onAsk: () => void}} told what changed, and that the reader is asked
   */
  constructor(tab, { onChange, onAsk }) {
    this.#tab = tab;
    this.#onChange = onChange;
    this.#onAsk = onAsk;
  }

  /**
   * The token that the client wants now.
   * @param {boolean} running a session runs: it is the next one
   * @returns {Promise<string|null>} null where there is none; pending where the reader is asked: what the reader
   *   gives begins another session
   */
  async token(running) {
    if (running) return this.offered || null;
    if (this.#tab.read()) return this.#tab.read();
    this.#welcomed = false;
    if (!this.ask && !this.#open) {
      const { status } = await this.knock();
      this.#open = status === 200;
      if (status === 401) this.#question("first", "");
    }
    return this.ask ? new Promise(() => {}) : null;
  }

  /**
   * Ask the relay without a socket, since a browser does not say why none comes about.
   * @returns {Promise<{status: number, reason: string}>} status 200 where it answers as it should, 0 where it does not
   */
  async knock() {
    const token = this.#tab.read();
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    try {
      const answer = await fetch("/events?limit=1&order=newest&since=1s", { headers, cache: "no-store" });
      const { message } = answer.ok ? {} : await answer.json().catch(() => ({}));
      const said = typeof message === "string" ? message : "";
      return { status: answer.status, reason: answer.ok ? STRINGS.link.httpOnly : STRINGS.link.answers(answer.status, said) };
    } catch {
      return { status: 0, reason: STRINGS.link.noAnswer };
    }
  }

  /**
   * Take what the reader gives.
   * @param {string} text
   * @param {boolean} running a session runs, which is to go on with it
   * @returns {boolean} false when it is no token, which the reader is told
   */
  offer(text, running) {
    const token = readToken(text);
    if (!token && running) this.#notTaken(STRINGS.token.noToken);
    else if (!token) this.#question("refused", STRINGS.token.noToken);
    else if (running) {
      this.offered = token;
      this.#set({ refusal: "" });
    } else {
      this.#use(token);
    }
    return token !== "";
  }

  /**
   * The relay goes on with a token; the message that says until when is yet to be heard.
   * @param {string} token
   */
  taken(token) {
    const { offered } = this;
    this.#use(token);
    this.#proven = true;
    // The reader may have given another one since.
    if (offered !== token) this.offered = offered;
  }

  /** Hear what the relay says. @param {Record<string, any>} message */
  hear(message) {
    switch (message.type) {
      case "welcome":
        this.#welcomed = this.#proven = true;
        this.#authRefused = this.kept = false;
        this.ask = "";
        this.#set({ endsAt: parseTime(message.expires_at, 0), expiring: false });
        break;
      case "subscribed":
        // The end of the token that counts; it also answers filters, and says so of that one again.
        if (message.expires_at !== undefined) this.#set({ endsAt: parseTime(message.expires_at, 0) });
        break;
      case "token_expiring":
        this.#set({ endsAt: parseTime(message.expires_at, 0), expiring: true });
        break;
      case "error":
        this.#authRefused = message.ref === "auth";
        if (this.#authRefused && message.code === "unavailable") this.#notTaken(message.message);
        break;
      case "bye":
        this.#left(message.code, message.reason ?? "");
        break;
      default: // Nothing of a token.
    }
  }

  #left(code, reason) {
    const token = this.#tab.read();
    if (code === TIMEOUT && !token && !this.#welcomed) this.#question("first", "");
    if (code !== UNAUTHORIZED && code !== FORBIDDEN) return;
    if (this.offered && (this.#authRefused || code === FORBIDDEN)) {
      this.#notTaken(reason);
      this.kept = true;
    } else if (this.offered) {
      // The old one has ended while the next one was on its way.
      this.#use(this.offered);
    } else if (code === UNAUTHORIZED) {
      this.#open = false;
      this.#question(!token ? "first" : this.#proven ? "ended" : "refused", token ? reason : "");
    } else if (token) {
      this.#question("nothing", reason);
    }
  }

  #question(ask, reason) {
    this.ask = ask;
    this.reason = reason;
    this.#tab.forget();
    this.offered = "";
    this.#set({ endsAt: 0, expiring: false, refusal: "" });
    this.#onAsk();
  }

  #use(token) {
    this.#tab.keep(token);
    this.offered = this.ask = "";
    this.#proven = false;
    this.#set({ endsAt: 0, expiring: false, refusal: "" });
  }

  #notTaken(reason) {
    this.offered = "";
    this.#set({ refusal: reason });
  }

  #set(changed) {
    this.#state = { ...this.#state, ...changed, held: this.#tab.read() !== "" };
    this.#onChange(this.#state);
  }
}
