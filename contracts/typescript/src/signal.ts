/** Event handlers: registration, and calls that isolate their errors. */

/** Removes a handler; calling it again has no effect. */
export type Off = () => void;

/** Call a handler; an error in it is rethrown as uncaught, so that it is reported but does not affect other handlers. */
export function call<T>(handler: (value: T) => void, value: T): void {
  try {
    handler(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** List of handlers for one kind of event. */
export class Signal<T> {
  readonly #handlers = new Set<{ handler: (value: T) => void }>();

  /** Add a handler; one that is added twice is called twice. */
  add(handler: (value: T) => void): Off {
    const entry = { handler };
    this.#handlers.add(entry);
    return () => void this.#handlers.delete(entry);
  }

  /** Call all handlers. */
  emit(value: T): void {
    for (const { handler } of [...this.#handlers]) call(handler, value);
  }
}
