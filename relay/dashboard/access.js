/**
 * What lets this page in: its token, when that ends, and the next one.
 *
 * Invariants:
 * 1. A token that the relay refused is never shown to it again: it is forgotten before anything else is tried.
 * 2. While a session runs, its token counts until the relay took the next one; a next one that is refused
 *    costs nothing but a connection.
 * 3. A token goes to the relay as a subprotocol or in a message, never in an address, and never into a text.
 */

import { parseTime } from "/assets/times.js";

/** As the relay takes them. */
const LONGEST = 16 * 1024;

/** So close to its end, a token is not what an answer speaks of: it may have crossed the next one's way. */
const LAST_MOMENT_MS = 2_000;

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;

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

/**
 * Ask the relay whether it wants a token, without one, so that a reader need not wait until it gives a socket up.
 * @param {AbortSignal} signal
 * @returns {Promise<"open"|"token"|"busy">} `busy`: it has other worries, and a socket is told which
 * @throws when it cannot be reached
 */
export async function knock(signal) {
  const answer = await fetch("/events?limit=1&order=newest&since=1s", { signal, cache: "no-store" });
  if (answer.ok) return "open";
  return answer.status === 401 ? "token" : "busy";
}

export class Access {
  #tab;
  #onChange;
  #next = "";
  /** @type {AccessState} */ #state = { held: false, endsAt: 0, expiring: false, refusal: "" };

  /** A session ran with this token: when it is refused now, it has ended. */
  proven = false;

  /**
   * @param {{read: () => string, keep: (token: string) => void, forget: () => void}} tab keeps it; see token.js
   * @param {(state: AccessState) => void} onChange
   */
  constructor(tab, onChange) {
    this.#tab = tab;
    this.#onChange = onChange;
  }

  /** The token to connect with; empty without one. */
  get token() {
    return this.#tab.read();
  }

  /** The token that the relay is to take in a running session; empty when there is none. */
  get next() {
    return this.#next;
  }

  /** Connect with this token from here on. @param {string} token */
  use(token) {
    this.#tab.keep(token);
    this.#next = "";
    this.proven = false;
    this.#set({ endsAt: 0, expiring: false, refusal: "" });
  }

  /** Have a running session go on with this token. @param {string} token */
  offer(token) {
    this.#next = token;
    this.#set({ refusal: "" });
  }

  /** The relay took the next token. @param {unknown} expiresAt */
  taken(expiresAt) {
    this.use(this.#next);
    this.begin(expiresAt);
  }

  /** The relay did not take the next token. @param {string} reason */
  notTaken(reason) {
    this.#next = "";
    this.#set({ refusal: reason });
  }

  /** A session begins. @param {unknown} expiresAt when its token ends */
  begin(expiresAt) {
    this.proven = true;
    this.#set({ endsAt: parseTime(expiresAt, 0), expiring: false });
  }

  /** The relay says that the token ends soon. @param {unknown} expiresAt */
  warn(expiresAt) {
    this.#set({ endsAt: parseTime(expiresAt, 0), expiring: true });
  }

  /** True when the session's token has no more time than a message takes. @param {number} now */
  endsBy(now) {
    return this.#state.endsAt > 0 && this.#state.endsAt - now < LAST_MOMENT_MS;
  }

  /** The token is no good. */
  forget() {
    this.#tab.forget();
    this.#next = "";
    this.#set({ endsAt: 0, expiring: false, refusal: "" });
  }

  #set(changed) {
    this.#state = { ...this.#state, ...changed, held: this.token !== "" };
    this.#onChange(this.#state);
  }
}
