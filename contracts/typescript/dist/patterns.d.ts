/**
 * NATS patterns: `*` stands for one token, a last `>` for one or more.
 *
 * Invariant: `union` selects all that its patterns select; more only when they are too many to send.
 */
/** Tell whether a text is a pattern. */
export declare function isPattern(text: string): boolean;
/** Tell whether every subject that `narrow` selects, `wide` selects too; a subject is its own pattern. */
export declare function covers(wide: string, narrow: string): boolean;
/** Tell whether an address has room for them. */
export declare function fits(patterns: readonly string[]): boolean;
/** The least patterns that select what all of these do, sorted; wider ones where those would be too many. */
export declare function union(patterns: Iterable<string>): string[];
