/**
 * Access to the relay: this tab's token, its expiry and its renewal.
 *
 * Invariants:
 * 1. A token that the relay rejected is never sent again: it is forgotten before anything else is tried.
 * 2. During a session its token stays valid until the relay has accepted the next one; a rejected renewal costs
 *    nothing but one connection.
 * 3. A token is sent as a subprotocol or in a message, never in a URL, and never appears in a text.
 */

import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

/** Maximum length that the relay accepts. */
const MAX_LENGTH = 16 * 1024;

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;

const [UNAUTHORIZED, FORBIDDEN, TIMEOUT] = [4401, 4403, 4408];

/**
 * @typedef {""|"first"|"refused"|"ended"|"nothing"} PromptReason why the user has to enter a token: there is none,
 *   the relay rejected it, it expired, or it grants nothing on this page
 */

/**
 * @typedef {object} AccessState
 * @property {boolean} held whether this tab has a token
 * @property {number} endsAt expiry of the session's token, UNIX milliseconds; 0 if it does not expire
 * @property {boolean} expiring whether the relay warned that it expires soon
 * @property {string} refusal why the relay rejected the next token; empty if it rejected none
 */

/**
 * Parse a token that the user pasted.
 * @param {string} text a token, optionally with the `Bearer` prefix of a header
 * @returns {string} empty if it is not a valid token
 */
export function readToken(text) {
  const token = text.trim().replace(/^bearer\s+/i, "");
  return token.length <= MAX_LENGTH && TOKEN.test(token) ? token : "";
}

export class Access {
  #tab;
  #onChange;
  #onPrompt;
  /** Set if the relay accepts connections without a token. */
  #tokenless = false;
  #welcomed = false;
  /** Set once a session ran with this token: if the relay rejects it afterwards, it has expired. */
  #wasValid = false;
  #authRejected = false;
  /** @type {AccessState} */ #state = { held: false, endsAt: 0, expiring: false, refusal: "" };

  /** Token that the relay has yet to accept in the running session; empty if there is none. */
  offered = "";

  /** Why the page cannot continue without the user. @type {PromptReason} */
  prompt = "";

  /** Reason given by the relay for the prompt. */
  reason = "";

  /** Set if the session was closed because of the next token, while its own token is still valid. */
  tokenStillValid = false;

  /**
   * @param {{read: () => string, save: (token: string) => void, forget: () => void}} tab token storage; see token.js
   * @param {{onChange: (state: AccessState) => void, onPrompt: () => void}} handlers
   */
  constructor(tab, { onChange, onPrompt }) {
    this.#tab = tab;
    this.#onChange = onChange;
    this.#onPrompt = onPrompt;
  }

  /**
   * Return the token for the client.
   * @param {boolean} running whether a session is running, which needs the next token
   * @returns {Promise<string|null>} null if there is none; pending while the user is prompted, because a token that
   *   the user enters starts a new session
   */
  async token(running) {
    if (running) return this.offered || null;
    if (this.#tab.read()) return this.#tab.read();
    this.#welcomed = false;
    if (!this.prompt && !this.#tokenless) {
      const { status } = await this.probe();
      this.#tokenless = status === 200;
      if (status === 401) this.#promptFor("first", "");
    }
    return this.prompt ? new Promise(() => {}) : null;
  }

  /**
   * Probe the relay with a plain request, because a browser does not reveal why a WebSocket failed.
   * @returns {Promise<{status: number, reason: string}>} status 200 if the relay responds normally, 0 if it does not respond
   */
  async probe() {
    const token = this.#tab.read();
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    try {
      const response = await fetch("/events?limit=1&order=newest&since=1s", { headers, cache: "no-store" });
      const { message } = response.ok ? {} : await response.json().catch(() => ({}));
      const detail = typeof message === "string" ? message : "";
      return { status: response.status, reason: response.ok ? STRINGS.link.httpOnly : STRINGS.link.httpError(response.status, detail) };
    } catch {
      return { status: 0, reason: STRINGS.link.noResponse };
    }
  }

  /**
   * Use a token that the user entered.
   * @param {string} text
   * @param {boolean} running whether a session is running, which then switches to the token
   * @returns {boolean} false if it is not a token, which is reported to the user
   */
  offer(text, running) {
    const token = readToken(text);
    if (!token && running) this.#renewalRejected(STRINGS.token.noToken);
    else if (!token) this.#promptFor("refused", STRINGS.token.noToken);
    else if (running) {
      this.offered = token;
      this.#set({ refusal: "" });
    } else {
      this.#use(token);
    }
    return token !== "";
  }

  /**
   * Handle the relay's acceptance of a token; the message with its expiry follows.
   * @param {string} token
   */
  accepted(token) {
    const { offered } = this;
    this.#use(token);
    this.#wasValid = true;
    // The user may have entered another one in the meantime.
    if (offered !== token) this.offered = offered;
  }

  /** Handle a message of the relay. @param {Record<string, any>} message */
  receive(message) {
    switch (message.type) {
      case "welcome":
        this.#welcomed = this.#wasValid = true;
        this.#authRejected = this.tokenStillValid = false;
        this.prompt = "";
        this.#set({ endsAt: parseTime(message.expires_at, 0), expiring: false });
        break;
      case "subscribed":
        // The expiry of the session's token; answers to filters repeat it.
        if (message.expires_at !== undefined) this.#set({ endsAt: parseTime(message.expires_at, 0) });
        break;
      case "token_expiring":
        this.#set({ endsAt: parseTime(message.expires_at, 0), expiring: true });
        break;
      case "error":
        this.#authRejected = message.ref === "auth";
        if (this.#authRejected && message.code === "unavailable") this.#renewalRejected(message.message);
        break;
      case "bye":
        this.#closed(message.code, message.reason ?? "");
        break;
      default: // Unrelated to the token.
    }
  }

  #closed(code, reason) {
    const token = this.#tab.read();
    if (code === TIMEOUT && !token && !this.#welcomed) this.#promptFor("first", "");
    if (code !== UNAUTHORIZED && code !== FORBIDDEN) return;
    if (this.offered && (this.#authRejected || code === FORBIDDEN)) {
      this.#renewalRejected(reason);
      this.tokenStillValid = true;
    } else if (this.offered) {
      // The old token expired while the next one was on its way.
      this.#use(this.offered);
    } else if (code === UNAUTHORIZED) {
      this.#tokenless = false;
      this.#promptFor(!token ? "first" : this.#wasValid ? "ended" : "refused", token ? reason : "");
    } else if (token) {
      this.#promptFor("nothing", reason);
    }
  }

  #promptFor(prompt, reason) {
    this.prompt = prompt;
    this.reason = reason;
    this.#tab.forget();
    this.offered = "";
    this.#set({ endsAt: 0, expiring: false, refusal: "" });
    this.#onPrompt();
  }

  #use(token) {
    this.#tab.save(token);
    this.offered = this.prompt = "";
    this.#wasValid = false;
    this.#set({ endsAt: 0, expiring: false, refusal: "" });
  }

  #renewalRejected(reason) {
    this.offered = "";
    this.#set({ refusal: reason });
  }

  #set(changed) {
    this.#state = { ...this.#state, ...changed, held: this.#tab.read() !== "" };
    this.#onChange(this.#state);
  }
}
