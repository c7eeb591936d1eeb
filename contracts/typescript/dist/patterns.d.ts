/**
 * NATS subject patterns: `*` matches one token, a trailing `>` one or more.
 *
 * Invariant: `union` selects everything that its patterns select; more only if they are too many to send.
 */
/** Return whether a string is a valid pattern. */
export declare function isPattern(text: string): boolean;
/** Return whether `wide` selects every subject that `narrow` selects; a subject is a pattern of its own. */
export declare function covers(wide: string, narrow: string): boolean;
/** Return whether patterns fit into a URL, together with a condition. */
export declare function fitsUrl(patterns: readonly string[], where?: string | null): boolean;
/**
 * Check that a condition fits into a URL.
 *
 * @throws TypeError if it is too long
 */
export declare function checkWhere(where: string | undefined): void;
/**
 * Return the minimal sorted set of patterns that covers the given ones; wider patterns if it would be too large,
 * together with a condition.
 */
export declare function union(patterns: Iterable<string>, where?: string | null): string[];
