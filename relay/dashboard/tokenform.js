/**
 * Token controls: the prompt, the reason for a rejection, the expiry, and the button that forgets the token.
 *
 * Invariants: a submitted token is removed from the field immediately; the field takes the focus only if the page cannot
 * continue without a token; the reason for a rejection is the relay's.
 */

import { byId, setAttribute, setText } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";
import { clock, fullTime } from "/assets/times.js";

/** @typedef {import("/assets/access.js").AccessState} AccessState */

/** Format a reason as a sentence. @param {string} text */
export function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "";
}

export class TokenForm {
  #form = byId("token-form");
  #label = byId("token-label");
  #input = /** @type {HTMLInputElement} */ (byId("token"));
  #error = byId("token-error");
  #ends = byId("token-ends");
  #forget = byId("token-forget");
  #tokenInUrl;
  /** @type {AccessState} */ #token = { held: false, endsAt: 0, expiring: false, refusal: "" };

  /**
   * @param {(token: string) => void} onToken called with a token that the user enters
   * @param {() => void} onForget called when the user wants the token to be forgotten
   * @param {boolean} tokenInUrl whether the URL contained a token that was not used
   */
  constructor(onToken, onForget, tokenInUrl) {
    this.#tokenInUrl = tokenInUrl;
    this.#forget.addEventListener("click", onForget);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const token = this.#input.value;
      this.#input.value = "";
      // Keep the focus in the field: the user may have to paste another one.
      this.#input.focus();
      if (token.trim()) onToken(token);
    });
  }

  /** Set while the session runs and the user can enter the next token. */
  get offered() {
    return this.#token.expiring || this.#token.refusal !== "";
  }

  /** @param {AccessState} token */
  set(token) {
    this.#token = token;
  }

  /** Focus the field. */
  focus() {
    this.#input.focus();
  }

  /** Hide the form. */
  hide() {
    this.#form.hidden = true;
    this.#setError("");
  }

  /**
   * Prompt for a token, without which the page cannot continue.
   * @param {import("/assets/access.js").PromptReason} prompt
   * @param {string} reason of the relay
   * @returns {{headline: string, detail: string}}
   */
  prompt(prompt, reason) {
    this.#show(STRINGS.token.field, reason);
    const first = this.#tokenInUrl ? `${STRINGS.token.inUrl} ${STRINGS.token.pasteHere}` : STRINGS.token.first;
    return { headline: STRINGS.token.headlines[prompt], detail: prompt === "first" ? first : STRINGS.token.other };
  }

  /**
   * Prompt for the next token, because the current one expires soon or the relay rejected the next one.
   * @returns {{headline: string, detail: string}}
   */
  promptRenewal() {
    const { endsAt, expiring, refusal } = this.#token;
    this.#show(STRINGS.token.newField, refusal);
    const at = clock(endsAt).slice(0, 8);
    if (!refusal) return { headline: STRINGS.token.expiresAt(at), detail: STRINGS.token.renew };
    return {
      headline: STRINGS.token.renewalRejected,
      detail: expiring ? STRINGS.token.currentExpires(at) : STRINGS.token.currentValid,
    };
  }

  /** Update the expiry. @param {number} now */
  tick(now) {
    const { held, endsAt, expiring } = this.#token;
    this.#forget.hidden = !held;
    const left = Math.max(0, Math.ceil((endsAt - now) / 1000));
    const sameDay = fullTime(endsAt).slice(0, 10) === fullTime(now).slice(0, 10);
    const until = sameDay ? clock(endsAt).slice(0, 5) : fullTime(endsAt).slice(0, 16);
    setText(this.#ends, endsAt === 0 ? "" : expiring ? STRINGS.token.expiresIn(left) : STRINGS.token.until(until));
    setAttribute(this.#ends, "data-soon", String(expiring));
    setAttribute(this.#ends, "title", endsAt === 0 ? null : STRINGS.token.expiresAt(fullTime(endsAt)));
  }

  #show(label, error) {
    this.#form.hidden = false;
    setText(this.#label, label);
    this.#setError(error);
  }

  #setError(error) {
    setText(this.#error, sentence(error));
    setAttribute(this.#input, "aria-invalid", error ? "true" : null);
  }
}
