/** Tickertape client and event types. */
export { connect } from "./client.js";
export { sessionCursors } from "./cursors.js";
export * from "./types.js";
