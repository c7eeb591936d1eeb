/**
 * The token that lets a client in, and the next one.
 *
 * Invariants:
 * 1. A token that the relay refused is not shown to it again.
 * 2. While a session runs, its token counts until the relay has taken the next one.
 * 3. No text of this client holds a token.
 */
/** Gives a token (a JWT), or null when there is none. */
export type TokenSource = () => Promise<string | null> | string | null;
/** A token cannot be had; `final` when asking again would be no use. */
export declare class TokenError extends Error {
    readonly final: boolean;
    constructor(message: string, final: boolean);
}
/** Asks for tokens when one is needed. */
export declare class Tokens {
    #private;
    constructor(ask: TokenSource);
    /**
     * The token to connect with; empty when there is none, since a relay may need none.
     *
     * @throws TokenError there is none
     */
    current(): Promise<string>;
    /**
     * Another token than the one in use, to go on with; null when there is none yet.
     *
     * @throws TokenError there is none
     */
    next(): Promise<string | null>;
    /**
     * The relay took a token.
     *
     * @param token which is the one in use from here on; by default the one that is
     */
    taken(token?: string): void;
    /** The relay cannot look at the next token now. */
    postponed(): void;
    /**
     * The relay refused a token.
     *
     * @param why in its words
     * @param token one that was to be the next; without it the one in use has ended, and the next one may be good
     */
    refused(why: string, token: string): void;
    /** Be asked anew: whoever says so has done something about it. */
    forgive(): void;
}
