/** Cursors, as far as a page looks into them. */

/** Read the epoch and the sequence of a cursor; what follows them is for the relay. @param {string} cursor */
export function readCursor(cursor) {
  const [epoch, seq] = cursor.split("-");
  return { epoch, seq: Number(seq) };
}
