/**
 * The token that lets a client in, and the next one.
 *
 * Invariants:
 * 1. A token that the relay refused is not shown to it again.
 * 2. While a session runs, its token counts until the relay has taken the next one.
 * 3. No text of this client holds a token.
 */
/** What a token looks like; anything else could not be offered as a subprotocol. */
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** Refusals and failures in a row after which a client gives up. */
const MAX_STRIKES = 5;
/** A token cannot be had; `final` when asking again would be no use. */
export class TokenError extends Error {
    final;
    constructor(message, final) {
        super(message);
        this.final = final;
    }
}
/** Asks for tokens when one is needed. */
export class Tokens {
    #ask;
    #current = "";
    #next = "";
    #refused = "";
    #why = "";
    #strikes = 0;
    constructor(ask) {
        this.#ask = ask;
    }
    /**
     * The token to connect with; empty when there is none, since a relay may need none.
     *
     * @throws TokenError there is none
     */
    async current() {
        if (this.#current)
            return this.#current;
        if (this.#strikes >= MAX_STRIKES)
            throw new TokenError(`the relay refuses each token: ${this.#why}`, true);
        let token;
        try {
            token = await this.#asked();
        }
        catch (error) {
            if (++this.#strikes < MAX_STRIKES || !(error instanceof TokenError))
                throw error;
            throw new TokenError(error.message, true);
        }
        if (token && token === this.#refused) {
            throw new TokenError(`the relay refuses the token (${this.#why}), and token() gave the same one again`, true);
        }
        this.#current = token;
        return token;
    }
    /**
     * Another token than the one in use, to go on with; null when there is none yet.
     *
     * @throws TokenError there is none
     */
    async next() {
        const token = await this.#asked();
        if (!token || token === this.#current || token === this.#refused)
            return null;
        this.#next = token;
        return token;
    }
    /**
     * The relay took a token.
     *
     * @param token which is the one in use from here on; by default the one that is
     */
    taken(token = this.#current) {
        this.#current = token;
        if (this.#next === token)
            this.#next = "";
        this.#strikes = 0;
    }
    /** The relay cannot look at the next token now. */
    postponed() {
        this.#next = "";
    }
    /**
     * The relay refused a token.
     *
     * @param why in its words
     * @param token one that was to be the next; without it the one in use has ended, and the next one may be good
     */
    refused(why, token) {
        this.#why = why;
        this.#refused = token || this.#current;
        if (this.#refused === this.#current)
            this.#current = this.#next;
        this.#next = "";
        this.#strikes++;
    }
    /** Be asked anew: whoever says so has done something about it. */
    forgive() {
        this.#strikes = 0;
    }
    async #asked() {
        let token;
        try {
            token = await this.#ask();
        }
        catch (error) {
            throw new TokenError(`token() failed: ${error instanceof Error ? error.message : String(error)}`, false);
        }
        if (token === null)
            return "";
        if (typeof token === "string" && TOKEN.test(token))
            return token;
        throw new TokenError("token() gave no JWT: that is three parts with dots between them", true);
    }
}
