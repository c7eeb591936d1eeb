/**
 * What the page says, in English: all of it stands here.
 *
 * Invariants: a text is a string, or a function of what changes in it; nothing here looks at the page.
 */

export const STRINGS = {
  link: {
    noAnswer: "the relay does not answer",
    httpOnly: "the relay answers, but no WebSocket comes about; a proxy before it may not let one through",
    answers: (status, message) => `the relay answers ${status}${message ? `: ${message}` : ""}`,
    clockOff: (length, ahead) => `this device’s clock is ${length} ${ahead ? "ahead" : "behind"}`,
    denied: "Nothing of what the filter asks for is granted to this page; it filters what is here.",
  },
  token: {
    noToken: "what was given is no token: that is three parts with dots between them",
  },
};
