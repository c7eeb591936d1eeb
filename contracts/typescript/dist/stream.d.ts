/**
 * HTTP stream of the relay in the shape of a WebSocket, for networks whose proxies forbid WebSockets.
 *
 * A stream cannot send: its link replaces it by another one to change the filter or the token.
 *
 * Invariants:
 * 1. The messages are those of the WebSocket; a rejection becomes the `bye` that the WebSocket would have received.
 * 2. Only an answer of a relay counts as a rejection: a proxy's is a broken connection.
 */
import type { WebSocketLike } from "./link.js";
/** Request for a stream. */
export interface StreamRequest {
    /** URL of the WebSocket; see `streamUrl`. */
    readonly url: URL;
    /** Token; empty if there is none. */
    readonly token: string;
    /** Set to get a snapshot as of the cursor of the URL. */
    readonly snapshot: boolean;
    /** Set if the token replaces that of the running session. */
    readonly renewal: boolean;
}
/** Return the URL of the stream beside a WebSocket; null if its path is not that of a relay. */
export declare function streamUrl(webSocket: URL): string | null;
/** Return whether a relay answers plain HTTP requests, be it that it rejects the token. */
export declare function answersHttp(url: string, token: string): Promise<boolean>;
export declare class StreamSocket implements WebSocketLike {
    #private;
    readyState: number;
    onmessage: WebSocketLike["onmessage"];
    onerror: WebSocketLike["onerror"];
    onclose: WebSocketLike["onclose"];
    constructor(request: StreamRequest);
    send(): void;
    close(): void;
}
