/**
 * Feeds that all users of the same URL in a page share.
 *
 * Invariants: a feed is opened by its first user and closed shortly after its last. On a server nothing is
 * shared, because its pages belong to different users.
 */
import { type Client, type Options } from "./client.js";
import type { Off } from "./signal.js";
import { ConnectionStore, GatewaysStore, LogsStore, type ClientSource } from "./stores.js";
export declare class SharedFeed implements ClientSource {
    #private;
    options: Options;
    readonly connection: ConnectionStore;
    readonly gateways: GatewaysStore;
    constructor(url: string);
    acquire(): [Client, Off];
    logs(pattern: string, limit: number): LogsStore;
}
/** Return the feed of a URL. `options` apply to the next connection; a new `token` function applies immediately. */
export declare function sharedFeed(url: string, options?: Options): SharedFeed;
