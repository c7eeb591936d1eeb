/** Public interface of a client, and `connect`, which creates one. */
import { Feed } from "./feed.js";
/**
 * Connect to a relay.
 *
 * The socket is opened when the first handler is added, or immediately if `subjects` are given. All handlers
 * added in the same turn of the event loop are part of the first subscription.
 *
 * @param url of the relay's feed, such as `wss://relay.example/ws`; `http(s)` and, in a page, a path are accepted
 * @throws TypeError if `where` is too long
 */
export function connect(url, options = {}) {
    return new Feed(url, options);
}
