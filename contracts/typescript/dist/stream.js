/**
 * HTTP stream of the relay in the shape of a WebSocket, for networks whose proxies forbid WebSockets.
 *
 * A stream cannot send: its link replaces it by another one to change the filter or the token.
 *
 * Invariants:
 * 1. The messages are those of the WebSocket; a rejection becomes the `bye` that the WebSocket would have received.
 * 2. Only an answer of a relay counts as a rejection: a proxy's is a broken connection.
 */
import { CLOSE_CODES } from "./types.js";
/** Maximum time for the answer to a probe, in milliseconds. */
const PROBE_MS = 5_000;
const authorization = (token) => token ? { Authorization: `Bearer ${token}` } : {};
/** Return the URL of the stream beside a WebSocket; null if its path is not that of a relay. */
export function streamUrl(webSocket) {
    const path = webSocket.pathname.replace(/\/ws$/, "/sse");
    if (path === webSocket.pathname || !globalThis.fetch)
        return null;
    return webSocket.protocol.replace("ws", "http") + "//" + webSocket.host + path + webSocket.search;
}
/** Return whether a relay answers plain HTTP requests, be it that it rejects the token. */
export async function answersHttp(url, token) {
    try {
        const signal = AbortSignal.timeout(PROBE_MS);
        const { status } = await fetch(url, { method: "HEAD", headers: authorization(token), cache: "no-store", signal });
        return status === 200 || status === 401;
    }
    catch {
        return false;
    }
}
export class StreamSocket {
    readyState = 0;
    onmessage = null;
    onerror = null;
    onclose = null;
    #abort = new AbortController();
    constructor(request) {
        void this.#run(streamUrl(request.url) ?? "", request)
            .catch(() => "")
            .then((reason) => this.onclose?.({ code: 1006, reason }));
    }
    send() { }
    close() {
        this.#abort.abort();
    }
    /** Read the stream to its end; return the reason if it is not one. */
    async #run(url, { token, snapshot, renewal, url: { searchParams } }) {
        const headers = authorization(token);
        const cursor = searchParams.get("cursor");
        if (snapshot && cursor)
            headers["Last-Event-ID"] = `${cursor}~snapshot`;
        const request = { headers, cache: "no-store", signal: this.#abort.signal };
        let response = await fetch(url, request);
        if (response.status === 204) {
            // The relay rejects the resume for good; without the header it gives the reason.
            delete headers["Last-Event-ID"];
            response = await fetch(url, request);
        }
        const { status, body } = response;
        if (status !== 200 || !body) {
            const { code, message = "" } = (await response.json().catch(() => ({})));
            if (code)
                this.#reject(status, code, message, response.headers.get("Retry-After"), renewal);
            return `HTTP ${status}`;
        }
        this.readyState = 1;
        const reader = body.getReader();
        const decoder = new TextDecoder();
        let rest = "";
        for (;;) {
            const { done, value } = await reader.read();
            if (done)
                return "";
            const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
            rest = lines.pop() ?? "";
            for (const line of lines)
                if (line.startsWith("data: "))
                    this.#emit(line.slice(6));
        }
    }
    #reject(status, code, reason, retryAfter, renewal) {
        // The last one: of the codes of status 400, the one for filters, because a stream's request is nothing else.
        const rule = Object.entries(CLOSE_CODES)
            .filter(([, { httpStatus }]) => httpStatus === status)
            .pop();
        if (!rule)
            return;
        if (renewal && status === 401)
            this.#emit(JSON.stringify({ type: "error", code, message: reason, ref: "auth" }));
        const retry_after_ms = Number(retryAfter) > 0 ? Number(retryAfter) * 1_000 : null;
        this.#emit(JSON.stringify({ type: "bye", code: Number(rule[0]), reason, retry_after_ms }));
    }
    #emit(data) {
        this.onmessage?.({ data });
    }
}
