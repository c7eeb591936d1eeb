/**
 * How far this page has read the stream.
 *
 * Invariants: the cursor is what the relay named, or empty; an event whose sequence was taken is not taken again
 * within one epoch.
 */

/** Split a cursor into epoch and sequence. @param {string} cursor */
export function readCursor(cursor) {
  const dash = cursor.lastIndexOf("-");
  return { epoch: cursor.slice(0, dash), seq: Number(cursor.slice(dash + 1)) };
}

export class Place {
  #cursor = "";
  #epoch = "";
  #lastSeq = 0;
  #onEpoch;

  /** @param {() => void} onEpoch the stream is another one than before */
  constructor(onEpoch) {
    this.#onEpoch = onEpoch;
  }

  /** The place reached, as the relay named it; empty before the first. */
  get cursor() {
    return this.#cursor;
  }

  /** Be at a place. @param {string} cursor */
  reach(cursor) {
    this.#enter(cursor);
    this.#cursor = cursor;
  }

  /** Be nowhere: the relay does not take this cursor. */
  leave() {
    this.#cursor = "";
  }

  /**
   * Events that were not taken before.
   * @template {{seq: number}} T
   * @param {T[]} items in stream order
   * @param {string} cursor that came with them
   * @returns {T[]}
   */
  take(items, cursor) {
    this.#enter(cursor);
    const fresh = items.filter((item) => item.seq > this.#lastSeq);
    if (fresh.length > 0) this.#lastSeq = fresh[fresh.length - 1].seq;
    return fresh;
  }

  #enter(cursor) {
    const { epoch } = readCursor(cursor);
    if (epoch === this.#epoch) return;
    if (this.#epoch) this.#onEpoch();
    this.#epoch = epoch;
    this.#lastSeq = 0;
  }
}
