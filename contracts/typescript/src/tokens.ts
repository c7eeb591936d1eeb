/**
 * Tokens of a client: the current one, and the next one during a renewal.
 *
 * Invariants:
 * 1. A token that the relay rejected is never sent again.
 * 2. During a session its token stays current until the relay has accepted the next one.
 * 3. No error message contains a token.
 */

/** Shape of a JWT; anything else cannot be sent as a subprotocol. */
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** Rejections and failures in a row after which the client gives up. */
const MAX_FAILURES = 5;

/** Returns a token (a JWT), or null if there is none. */
export type TokenSource = () => Promise<string | null> | string | null;

/** Failure to get a token; `final` if a retry cannot help. */
export class TokenError extends Error {
  constructor(
    message: string,
    readonly final: boolean,
  ) {
    super(message);
  }
}

/** Source of tokens that remembers the relay's verdicts. */
export class Tokens {
  readonly #source: TokenSource;
  #current = "";
  #next = "";
  #rejected = "";
  #reason = "";
  #failures = 0;

  constructor(source: TokenSource) {
    this.#source = source;
  }

  /**
   * Return the token to connect with; empty if there is none, since the relay may not require one.
   *
   * @throws TokenError if no usable token is available
   */
  async current(): Promise<string> {
    if (this.#current) return this.#current;
    if (this.#failures >= MAX_FAILURES)
      throw new TokenError(`the relay rejected every token: ${this.#reason}`, true);
    let token: string;
    try {
      token = await this.#request();
    } catch (error) {
      if (++this.#failures < MAX_FAILURES || !(error instanceof TokenError)) throw error;
      throw new TokenError(error.message, true);
    }
    if (token && token === this.#rejected) {
      throw new TokenError(
        `the relay rejected the token (${this.#reason}) and token() returned the same one again`,
        true,
      );
    }
    this.#current = token;
    return token;
  }

  /**
   * Return a token that can replace the current one; null if there is none yet.
   *
   * @throws TokenError if `token()` fails
   */
  async next(): Promise<string | null> {
    const token = await this.#request();
    if (!token || token === this.#current || token === this.#rejected) return null;
    this.#next = token;
    return token;
  }

  /**
   * Record that the relay accepted a token.
   *
   * @param token the new current token; by default the one that is current already
   */
  accepted(token = this.#current): void {
    this.#current = token;
    if (this.#next === token) this.#next = "";
    this.#failures = 0;
  }

  /** Record that the relay could not verify the next token. */
  deferred(): void {
    this.#next = "";
  }

  /**
   * Record that the relay rejected a token.
   *
   * @param reason the relay's reason
   * @param token the rejected next token; if empty, the current one expired and the next one may be good
   */
  rejected(reason: string, token: string): void {
    this.#reason = reason;
    this.#rejected = token || this.#current;
    if (this.#rejected === this.#current) this.#current = this.#next;
    this.#next = "";
    this.#failures++;
  }

  /** Reset the failure count, because the user retries explicitly. */
  resetFailures(): void {
    this.#failures = 0;
  }

  async #request(): Promise<string> {
    let token: unknown;
    try {
      token = await this.#source();
    } catch (error) {
      throw new TokenError(
        `token() failed: ${error instanceof Error ? error.message : String(error)}`,
        false,
      );
    }
    if (token === null) return "";
    if (typeof token === "string" && TOKEN.test(token)) return token;
    throw new TokenError("token() did not return a JWT: expected three parts separated by dots", true);
  }
}
