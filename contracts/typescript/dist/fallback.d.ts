/**
 * Choice of the transport: an HTTP stream where a proxy lets no WebSocket pass.
 *
 * Invariants:
 * 1. A stream is chosen only after `MAX_UNOPENED` WebSockets in a row have failed before their first message, each
 *    while plain HTTP to the same relay worked: neither a relay that is down nor one that rejects the client is a
 *    reason.
 * 2. The choice is not for good: a later reconnect tries a WebSocket again.
 */
import type { Transport } from "./state.js";
export declare class Fallback {
    #private;
    /** Transport of the current attempt, or of the last one. */
    transport: Transport;
    /** Choose the transport of the next attempt, given its URL and token. */
    choose(url: URL, token: string): Promise<Transport>;
    /** Record that a connection failed before its first message. */
    failed(): void;
    /** Record that a relay sent its first message. */
    opened(): void;
}
