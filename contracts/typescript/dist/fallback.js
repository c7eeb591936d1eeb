/**
 * Choice of the transport: an HTTP stream where a proxy lets no WebSocket pass.
 *
 * Invariants:
 * 1. A stream is chosen only after `MAX_UNOPENED` WebSockets in a row have failed before their first message, each
 *    while plain HTTP to the same relay worked: neither a relay that is down nor one that rejects the client is a
 *    reason.
 * 2. The choice is not for good: a later reconnect tries a WebSocket again.
 */
import { answersHttp, streamUrl } from "./stream.js";
/** Two, because a relay may start between the failure of the first WebSocket and the answer to the probe. */
const MAX_UNOPENED = 2;
/** Time in milliseconds after which a reconnect tries a WebSocket again. */
const STREAM_MS = 5 * 60_000;
export class Fallback {
    /** Transport of the current attempt, or of the last one. */
    transport = "websocket";
    /** Set if the last WebSocket failed before its first message. */
    #unopened = false;
    /** WebSockets in a row that failed so although plain HTTP worked. */
    #count = 0;
    #streamUntil = 0;
    /** Choose the transport of the next attempt, given its URL and token. */
    async choose(url, token) {
        const stream = streamUrl(url);
        if (this.#unopened && stream) {
            this.#count = (await answersHttp(stream, token)) ? this.#count + 1 : 0;
            this.#unopened = false;
            this.#streamUntil = performance.now() + STREAM_MS;
        }
        if (performance.now() >= this.#streamUntil)
            this.#count = Math.min(this.#count, MAX_UNOPENED - 1);
        return stream && this.#count >= MAX_UNOPENED ? "stream" : "websocket";
    }
    /** Record that a connection failed before its first message. */
    failed() {
        if (this.transport === "websocket")
            this.#unopened = true;
        else
            this.#count = MAX_UNOPENED - 1;
    }
    /** Record that a relay sent its first message. */
    opened() {
        if (this.transport === "websocket")
            this.#count = 0;
    }
}
