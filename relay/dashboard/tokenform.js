/**
 * What the reader sees of the token: the question for one, why one was not taken, when it ends, and how to
 * forget it.
 *
 * Invariants: a token that was given leaves the field at once; the focus moves into the field only when nothing
 * goes on without a token; the reason for a refusal is the relay's own.
 */

import { byId, setAttribute, setText } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";
import { clock, fullTime } from "/assets/times.js";

/** @typedef {import("/assets/access.js").AccessState} AccessState */

/** As a sentence. @param {string} text */
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
  #inAddress;
  /** @type {AccessState} */ #token = { held: false, endsAt: 0, expiring: false, refusal: "" };

  /**
   * @param {(token: string) => void} onToken the reader gives a token
   * @param {() => void} onForget the reader wants the page to forget it
   * @param {boolean} inAddress the address had one that was not used
   */
  constructor(onToken, onForget, inAddress) {
    this.#inAddress = inAddress;
    this.#forget.addEventListener("click", onForget);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const token = this.#input.value;
      this.#input.value = "";
      // Whoever pressed the button may have to paste again.
      this.#input.focus();
      if (token.trim()) onToken(token);
    });
  }

  /** True while the page goes on, and the reader may give it the next token. */
  get offered() {
    return this.#token.expiring || this.#token.refusal !== "";
  }

  /** @param {AccessState} token */
  set(token) {
    this.#token = token;
  }

  /** Put the cursor into the field. */
  focus() {
    this.#input.focus();
  }

  /** Nothing to ask for. */
  hide() {
    this.#form.hidden = true;
    this.#tell("");
  }

  /**
   * Nothing goes on without a token.
   * @param {import("/assets/access.js").Ask} why
   * @param {string} reason what the relay said
   * @returns {{headline: string, detail: string}}
   */
  ask(why, reason) {
    this.#show(STRINGS.token.field, reason);
    const first = this.#inAddress ? `${STRINGS.token.inAddress} ${STRINGS.token.pasteHere}` : STRINGS.token.first;
    return { headline: STRINGS.token.headlines[why], detail: why === "first" ? first : STRINGS.token.other };
  }

  /**
   * The token ends soon, or the next one was not taken.
   * @returns {{headline: string, detail: string}}
   */
  offer() {
    const { endsAt, expiring, refusal } = this.#token;
    this.#show(STRINGS.token.newField, refusal);
    const at = clock(endsAt).slice(0, 8);
    if (!refusal) return { headline: STRINGS.token.endsAt(at), detail: STRINGS.token.unbroken };
    return {
      headline: STRINGS.token.notTaken,
      detail: expiring ? STRINGS.token.oldEnds(at) : STRINGS.token.oldCounts,
    };
  }

  /** Write when the token ends. @param {number} now */
  tick(now) {
    const { held, endsAt, expiring } = this.#token;
    this.#forget.hidden = !held;
    const left = Math.max(0, Math.ceil((endsAt - now) / 1000));
    const sameDay = fullTime(endsAt).slice(0, 10) === fullTime(now).slice(0, 10);
    const until = sameDay ? clock(endsAt).slice(0, 5) : fullTime(endsAt).slice(0, 16);
    setText(this.#ends, endsAt === 0 ? "" : expiring ? STRINGS.token.endsIn(left) : STRINGS.token.until(until));
    setAttribute(this.#ends, "data-soon", String(expiring));
    setAttribute(this.#ends, "title", endsAt === 0 ? null : STRINGS.token.endsAt(fullTime(endsAt)));
  }

  #show(label, error) {
    this.#form.hidden = false;
    setText(this.#label, label);
    this.#tell(error);
  }

  #tell(error) {
    setText(this.#error, sentence(error));
    setAttribute(this.#input, "aria-invalid", error ? "true" : null);
  }
}
