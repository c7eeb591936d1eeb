/** Handlers of one kind, and how they are called. */
/** Call a handler; what it throws is its owner's, told as an uncaught error, and stops nobody else. */
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
/** Those who want to hear of one thing. */
export class Signal {
    #handlers = new Set();
    /** Call a handler from now on; the same one twice is called twice. */
    add(handler) {
        const entry = { handler };
        this.#handlers.add(entry);
        return () => void this.#handlers.delete(entry);
    }
    /** Tell all of them. */
    emit(value) {
        for (const { handler } of [...this.#handlers])
            call(handler, value);
    }
}
