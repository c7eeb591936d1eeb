/**
 * Stores behind the React hooks: immutable values that change at most once per frame.
 *
 * Invariants: a store follows the feed only while it has subscribers; its size is bounded by its limit or by
 * the number of gateways.
 */
import type { Client } from "./client.js";
import type { Off } from "./signal.js";
import type { State, Upstream } from "./state.js";
import type { GapMessage, GatewayStatusChange, SystemLog } from "./types.js";
/** Source of a shared client, which is open while it is in use. */
export interface ClientSource {
    acquire(): [client: Client, release: Off];
}
/** Store for `useSyncExternalStore`. */
export declare abstract class Store<T> {
    #private;
    constructor(source: ClientSource, initial: T);
    /** Set while the store has no subscribers. */
    get idle(): boolean;
    readonly getSnapshot: () => T;
    readonly subscribe: (changed: () => void) => Off;
    /** Reset the store and add its handlers to a client; return the functions that remove them. */
    protected abstract attach(client: Client): Off[];
    /** Compute the current value. */
    protected abstract compute(): T;
    protected changed(): void;
}
/** Connection state, and the client; null before the first use and on a server. */
export interface Connection {
    readonly state: State;
    readonly upstream: Upstream;
    /** Number of states that the last snapshot lacked, because the relay cannot hold all; 0 if it was complete. */
    readonly truncated: number;
    readonly client: Client | null;
}
export declare const NO_CONNECTION: Connection;
export declare class ConnectionStore extends Store<Connection> {
    #private;
    constructor(source: ClientSource);
    protected attach(client: Client): Off[];
    protected compute(): Connection;
}
/** Latest status of a gateway, and its position in the stream. */
export interface Gateway {
    readonly subject: string;
    readonly seq: number;
    readonly event: GatewayStatusChange;
}
export declare const NO_GATEWAYS: readonly Gateway[];
export declare class GatewaysStore extends Store<readonly Gateway[]> {
    #private;
    constructor(source: ClientSource);
    protected attach(client: Client): Off[];
    protected compute(): readonly Gateway[];
}
/** Row of a log: a line or a gap. `key` is unique among the rows. */
export type LogRow = {
    readonly kind: "line";
    readonly key: string;
    readonly subject: string;
    readonly seq: number;
    readonly event: SystemLog;
} | {
    readonly kind: "gap";
    readonly key: string;
    readonly gap: GapMessage;
};
export declare const NO_ROWS: readonly LogRow[];
export declare class LogsStore extends Store<readonly LogRow[]> {
    #private;
    constructor(source: ClientSource, pattern: string, limit: number);
    protected attach(client: Client): Off[];
    protected compute(): readonly LogRow[];
}
