/** Client and types of Tickertape. */
export { connect } from "./client.js";
export { sessionCursors } from "./cursors.js";
export * from "./types.js";
