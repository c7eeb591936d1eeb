/**
 * Tokens of a client: the current one, and the next one during a renewal.
 *
 * Invariants:
 * 1. A token that the relay rejected is never sent again.
 * 2. During a session its token stays current until the relay has accepted the next one.
 * 3. No error message contains a token.
 */
/** Returns a token (a JWT), or null if there is none. */
export type TokenSource = () => Promise<string | null> | string | null;
/** Failure to get a token; `final` if a retry cannot help. */
export declare class TokenError extends Error {
    readonly final: boolean;
    constructor(message: string, final: boolean);
}
/** Source of tokens that remembers the relay's verdicts. */
export declare class Tokens {
    #private;
    constructor(source: TokenSource);
    /**
     * Return the token to connect with; empty if there is none, since the relay may not require one.
     *
     * @throws TokenError if no usable token is available
     */
    current(): Promise<string>;
    /**
     * Return a token that can replace the current one; null if there is none yet.
     *
     * @throws TokenError if `token()` fails
     */
    next(): Promise<string | null>;
    /**
     * Record that the relay accepted a token.
     *
     * @param token the new current token; by default the one that is current already
     */
    accepted(token?: string): void;
    /** Record that the relay could not verify the next token. */
    deferred(): void;
    /**
     * Record that the relay rejected a token.
     *
     * @param reason the relay's reason
     * @param token the rejected next token; if empty, the current one expired and the next one may be good
     */
    rejected(reason: string, token: string): void;
    /** Reset the failure count, because the user retries explicitly. */
    resetFailures(): void;
}
