/** How a feed is asked for and used. */
import { Feed } from "./feed.js";
/**
 * Follow a relay.
 *
 * The socket is opened once there is a handler, or at once with `subjects`; handlers that are added in the
 * same turn of the event loop are in its first filter.
 *
 * @param url of the relay's feed, such as `wss://relay.example/ws`; `http(s)`, and in a page a path, will do
 */
export function connect(url, options = {}) {
    return new Feed(url, options);
}
