/** Handlers of one kind, and how they are called. */

/** Ends what a call began: takes a handler away. A second call does nothing. */
export type Off = () => void;

/** Call a handler; what it throws is its owner's, told as an uncaught error, and stops nobody else. */
export function call<T>(handler: (value: T) => void, value: T): void {
  try {
    handler(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Those who want to hear of one thing. */
export class Signal<T> {
  readonly #handlers = new Set<{ handler: (value: T) => void }>();

  /** Call a handler from now on; the same one twice is called twice. */
  add(handler: (value: T) => void): Off {
    const entry = { handler };
    this.#handlers.add(entry);
    return () => void this.#handlers.delete(entry);
  }

  /** Tell all of them. */
  emit(value: T): void {
    for (const { handler } of [...this.#handlers]) call(handler, value);
  }
}
