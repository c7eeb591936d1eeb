/** Event handlers: registration, and calls that isolate their errors. */
/** Call a handler; an error in it is rethrown as uncaught, so that it is reported but does not affect other handlers. */
export function call(handler, value) {
    try {
        handler(value);
    }
    catch (error) {
        queueMicrotask(() => {
            throw error;
        });
    }
}
/** List of handlers for one kind of event. */
export class Signal {
    #handlers = new Set();
    /** Add a handler; one that is added twice is called twice. */
    add(handler) {
        const entry = { handler };
        this.#handlers.add(entry);
        return () => void this.#handlers.delete(entry);
    }
    /** Call all handlers. */
    emit(value) {
        for (const { handler } of [...this.#handlers])
            call(handler, value);
    }
}
