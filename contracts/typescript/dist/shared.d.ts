/**
 * One feed for all of a page that use the same address, for as long as anybody does.
 *
 * Invariants: the feed begins with its first user and ends a moment after its last; on a server nothing is
 * shared, since its pages are different readers'.
 */
import { type Client, type Options } from "./client.js";
import type { Off } from "./signal.js";
import { GatewaysStore, LinkStore, LogsStore, type Lender } from "./stores.js";
export declare class SharedFeed implements Lender {
    #private;
    options: Options;
    readonly link: LinkStore;
    readonly gateways: GatewaysStore;
    constructor(url: string);
    borrow(): [Client, Off];
    logs(pattern: string, limit: number): LogsStore;
}
/** The feed of an address; `options` count from the next connection on, its `token` at once. */
export declare function sharedFeed(url: string, options?: Options): SharedFeed;
