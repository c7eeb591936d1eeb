/**
 * NATS subject patterns: `*` matches one token, a trailing `>` one or more.
 *
 * Invariant: `union` selects everything that its patterns select; more only if they are too many to send.
 */
/** Maximum number of patterns in one filter, set by the relay. */
const MAX_SUBJECTS = 64;
/** Maximum encoded length of patterns and condition in a URL; the relay accepts a query of 4 KiB in total. */
const MAX_LENGTH = 3_000;
/** Maximum encoded length of a condition. Connecting without it would deliver events that do not match. */
const MAX_WHERE_LENGTH = 2_500;
/** Maximum number of patterns that are compared pairwise. */
const MAX_COMPARED = 128;
const TOKEN = String.raw `[^\s.*>]+|\*`;
const PATTERN = new RegExp(`^(?:(?:${TOKEN})\\.)*(?:${TOKEN}|>)$`);
/** Return whether a string is a valid pattern. */
export function isPattern(text) {
    return PATTERN.test(text);
}
/** Return whether `wide` selects every subject that `narrow` selects; a subject is a pattern of its own. */
export function covers(wide, narrow) {
    const outer = wide.split(".");
    const inner = narrow.split(".");
    const open = outer.at(-1) === ">";
    if (open)
        outer.pop();
    if (open ? inner.length <= outer.length : inner.at(-1) === ">" || inner.length !== outer.length)
        return false;
    return outer.every((token, index) => token === "*" || token === inner[index]);
}
/** Return whether patterns fit into a URL, together with a condition. */
export function fitsUrl(patterns, where) {
    return encodeURIComponent(patterns.join()).length + whereLength(where) <= MAX_LENGTH;
}
/**
 * Check that a condition fits into a URL.
 *
 * @throws TypeError if it is too long
 */
export function checkWhere(where) {
    if (whereLength(where) > MAX_WHERE_LENGTH)
        throw new TypeError(`where has more than ${MAX_WHERE_LENGTH} characters when encoded in a URL`);
}
function whereLength(where) {
    return where ? new URLSearchParams({ where }).toString().length : 0;
}
/**
 * Return the minimal sorted set of patterns that covers the given ones; wider patterns if it would be too large,
 * together with a condition.
 */
export function union(patterns, where) {
    let merged = [...new Set(patterns)];
    for (let tokens = 3;; tokens--) {
        if (merged.length <= MAX_COMPARED)
            merged = merged.filter((pattern) => !merged.some((other) => other !== pattern && covers(other, pattern)));
        if (merged.length <= MAX_SUBJECTS && fitsUrl(merged, where))
            return merged.sort();
        merged = [...new Set(merged.map((pattern) => widen(pattern, tokens)))];
    }
}
function widen(pattern, tokens) {
    const parts = pattern.split(".");
    return parts.length > tokens ? [...parts.slice(0, tokens), ">"].join(".") : pattern;
}
