/** Event handlers: registration, and calls that isolate their errors. */
/** Removes a handler; calling it again has no effect. */
export type Off = () => void;
/** Call a handler; an error in it is rethrown as uncaught, so that it is reported but does not affect other handlers. */
export declare function call<T>(handler: (value: T) => void, value: T): void;
/** List of handlers for one kind of event. */
export declare class Signal<T> {
    #private;
    /** Add a handler; one that is added twice is called twice. */
    add(handler: (value: T) => void): Off;
    /** Call all handlers. */
    emit(value: T): void;
}
