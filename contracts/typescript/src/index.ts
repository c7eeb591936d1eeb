/** Tickertape client and event types. */

export { connect, type Client, type Filter, type Options, type Received } from "./client.js";
export { sessionCursors, type CursorStore } from "./cursors.js";
export type { WebSocketLike, WebSocketConstructor } from "./link.js";
export type { Off } from "./signal.js";
export type { State, Transport, Upstream } from "./state.js";
export type { TokenSource } from "./tokens.js";
export * from "./types.js";
