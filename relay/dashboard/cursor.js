/** Cursors, as far as a page looks into them. */

/** Split a cursor into epoch and sequence. @param {string} cursor */
export function readCursor(cursor) {
  const dash = cursor.lastIndexOf("-");
  return { epoch: cursor.slice(0, dash), seq: Number(cursor.slice(dash + 1)) };
}
