/**
 * NATS patterns: `*` stands for one token, a last `>` for one or more.
 *
 * Invariant: `union` selects all that its patterns select; more only when they are too many to send.
 */
/** Patterns that a relay takes in one filter. */
const MAX_SUBJECTS = 64;
/** Characters of them in the address; the relay takes 4 KiB of query in all. */
const MAX_LENGTH = 3_000;
/** Patterns that are compared each with each. */
const MAX_COMPARED = 128;
const TOKEN = String.raw `[^\s.*>]+|\*`;
const PATTERN = new RegExp(`^(?:(?:${TOKEN})\\.)*(?:${TOKEN}|>)$`);
/** Tell whether a text is a pattern. */
export function isPattern(text) {
    return PATTERN.test(text);
}
/** Tell whether every subject that `narrow` selects, `wide` selects too; a subject is its own pattern. */
export function covers(wide, narrow) {
    const outer = wide.split(".");
    const inner = narrow.split(".");
    const open = outer.at(-1) === ">";
    if (open)
        outer.pop();
    if (open ? inner.length <= outer.length : inner.at(-1) === ">" || inner.length !== outer.length)
        return false;
    return outer.every((token, place) => token === "*" || token === inner[place]);
}
/** Tell whether an address has room for them. */
export function fits(patterns) {
    return encodeURIComponent(patterns.join()).length <= MAX_LENGTH;
}
/** The least patterns that select what all of these do, sorted; wider ones where those would be too many. */
export function union(patterns) {
    let wide = [...new Set(patterns)];
    for (let tokens = 3;; tokens--) {
        if (wide.length <= MAX_COMPARED)
            wide = wide.filter((one) => !wide.some((other) => other !== one && covers(other, one)));
        if (wide.length <= MAX_SUBJECTS && fits(wide))
            return wide.sort();
        wide = [...new Set(wide.map((pattern) => cut(pattern, tokens)))];
    }
}
function cut(pattern, tokens) {
    const parts = pattern.split(".");
    return parts.length > tokens ? [...parts.slice(0, tokens), ">"].join(".") : pattern;
}
