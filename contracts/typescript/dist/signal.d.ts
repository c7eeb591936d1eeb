/** Handlers of one kind, and how they are called. */
/** Ends what a call began: takes a handler away. A second call does nothing. */
export type Off = () => void;
/** Call a handler; what it throws is its owner's, told as an uncaught error, and stops nobody else. */
export declare function call<T>(handler: (value: T) => void, value: T): void;
/** Those who want to hear of one thing. */
export declare class Signal<T> {
    #private;
    /** Call a handler from now on; the same one twice is called twice. */
    add(handler: (value: T) => void): Off;
    /** Tell all of them. */
    emit(value: T): void;
}
