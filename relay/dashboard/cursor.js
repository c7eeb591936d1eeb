/** Cursors, as far as the page interprets them. */

/** Parse the epoch and the sequence of a cursor; the rest is meant for the relay. @param {string} cursor */
export function readCursor(cursor) {
  const [epoch, seq] = cursor.split("-");
  return { epoch, seq: Number(seq) };
}
