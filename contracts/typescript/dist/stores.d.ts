/**
 * What React shows of a feed: values that change at most once a frame, each another object when it does.
 *
 * Invariants: a store follows the feed while somebody watches it; what it holds is bounded by its limit, or
 * by the number of gateways.
 */
import type { Client } from "./client.js";
import type { Off } from "./signal.js";
import type { State, Upstream } from "./state.js";
import type { GapMessage, GatewayStatusChange, SystemLog } from "./types.js";
/** Lends a client for as long as somebody needs it. */
export interface Lender {
    borrow(): [client: Client, giveBack: Off];
}
/** A value for `useSyncExternalStore`. */
export declare abstract class Store<T> {
    #private;
    constructor(lender: Lender, initial: T);
    /** Nobody watches it. */
    get idle(): boolean;
    readonly get: () => T;
    readonly watch: (changed: () => void) => Off;
    /** Begin anew with a feed. */
    protected abstract follow(client: Client): Off[];
    /** The value as it is now. */
    protected abstract made(): T;
    protected changed(): void;
}
/** How a feed stands, and the feed; null before it is used, as on a server. */
export interface Link {
    readonly state: State;
    readonly upstream: Upstream;
    readonly client: Client | null;
}
export declare const NO_LINK: Link;
export declare class LinkStore extends Store<Link> {
    #private;
    constructor(lender: Lender);
    protected follow(client: Client): Off[];
    protected made(): Link;
}
/** The newest status of a gateway, and where it stands in the stream. */
export interface Gateway {
    readonly subject: string;
    readonly seq: number;
    readonly event: GatewayStatusChange;
}
export declare const NO_GATEWAYS: readonly Gateway[];
export declare class GatewaysStore extends Store<readonly Gateway[]> {
    #private;
    constructor(lender: Lender);
    protected follow(client: Client): Off[];
    protected made(): readonly Gateway[];
}
/** A row of a log: a line, or lines that will not come. `key` is unique among the rows. */
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
    constructor(lender: Lender, pattern: string, limit: number);
    protected follow(client: Client): Off[];
    protected made(): readonly LogRow[];
}
