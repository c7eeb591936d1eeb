/**
 * Link to the relay: one WebSocket at a time, with its token, its watchdog and its reconnects. Where WebSockets cannot
 * be established, an HTTP stream takes its place.
 *
 * Invariants:
 * 1. Messages on an abandoned socket are ignored.
 * 2. A link that is silent for ten seconds longer than the heartbeat interval is dead, whatever the socket reports.
 * 3. A closed link has no timer, no listener and no socket.
 * 4. Delays are durations: no clock is compared with the relay's.
 * 5. The relay answers in order, and answers `auth` with the same `subscribed` as `subscribe`: a token counts as
 *    accepted only on the answer to the message that carried it.
 */
import { isOffline, watchDevice } from "./device.js";
import { Fallback } from "./fallback.js";
import { backoffMs, closeRule } from "./reconnect.js";
import { POLL_MS } from "./state.js";
import { StreamSocket } from "./stream.js";
import { TokenError } from "./tokens.js";
import { SUBPROTOCOL } from "./types.js";
/** Timeouts in milliseconds: beyond the heartbeat interval, until the first message, and for a pong. */
const HEARTBEAT_GRACE_MS = 10_000;
const OPENING_MS = 10_000;
const PONG_MS = 5_000;
/** Session length from which on a disconnect does not count as a failure and the backoff starts over. */
const STABLE_MS = 10_000;
/** Minimum interval between two calls of `token()` for a renewal. */
const RENEW_MS = 2_000;
export class Link {
    state = { phase: "connecting", reason: "" };
    /** Set once the session is subscribed: from then on `subscribe` is allowed and keeps the position. */
    subscribed = false;
    #handlers;
    #tokens;
    #Socket;
    #socket = null;
    #deviceWatch = null;
    #attemptId = 0;
    /** Identifier of the latest renewal; results of earlier ones are discarded. */
    #renewal = 0;
    /** Messages that await a `subscribed`: the token of an `auth`, an empty string for a filter. */
    #pending = [];
    #attempt = 0;
    #host = "";
    /** Set while no attempt is in progress: the next one waits for its time or for the network. */
    #idle = false;
    /** Set if the relay set the delay of the next attempt. */
    #serverDelay = false;
    #timers = {
        retry: undefined,
        watchdog: undefined,
        catchUp: undefined,
        renew: undefined,
    };
    #heartbeatMs = 0;
    #deadline = 0;
    #subscribedAt = 0;
    #bye = null;
    #refusedAuth = "";
    #socketError = "";
    #fallback = new Fallback();
    constructor(handlers, tokens, Socket) {
        this.#handlers = handlers;
        this.#tokens = tokens;
        this.#Socket = Socket;
    }
    /** Transport of the current attempt, or of the last one. */
    get transport() {
        return this.#fallback.transport;
    }
    /** Connect immediately, dropping any current connection. */
    start() {
        if (!this.#deviceWatch) {
            this.#deviceWatch = new AbortController();
            watchDevice(this.#deviceWatch.signal, () => this.#wake(), () => this.#idle && this.#waitToRetry());
        }
        this.#attempt = 0;
        this.#tokens?.resetFailures();
        void this.#dial();
    }
    /** Close the link for good, with all its timers and listeners. */
    close(reason) {
        this.#drop();
        this.#deviceWatch?.abort();
        this.#deviceWatch = null;
        this.#setState({ phase: "closed", reason });
    }
    /** Renew the token of the running session; without a session, the next attempt asks for a token anyway. */
    renew() {
        if (this.subscribed)
            void this.#renew(0);
    }
    /** Send a message if the socket is open. */
    send(message) {
        if (this.#socket?.readyState !== 1)
            return;
        if (this.transport === "stream") {
            // Another stream continues at the cursor.
            if (message.type !== "ping")
                void this.#dial(message.type === "auth" ? message.token : "");
            return;
        }
        this.#socket.send(JSON.stringify(message));
        if (message.type !== "ping")
            this.#pending.push(message.type === "auth" ? message.token : "");
    }
    /** Handle a `subscribed`; `past` detects when the session has caught up, if it started in the past. */
    onSubscribed(past) {
        const token = this.#pending.shift();
        if (token) {
            this.#tokens?.accepted(token);
            this.#renewal++;
            clearTimeout(this.#timers.renew);
            this.#handlers.renewed(token);
        }
        if (this.subscribed)
            return;
        this.subscribed = true;
        this.#subscribedAt = performance.now();
        // A stream that replaces another is as live as that was.
        if (this.state.phase === "live")
            return;
        this.#setState({ phase: past ? "catching-up" : "live", reason: "" });
        if (past)
            this.#pollCatchUp(past);
    }
    /**
     * Connect.
     *
     * @param next replaces a running stream: the token to renew it with, or an empty string to keep its token
     */
    async #dial(next) {
        this.#drop();
        const attemptId = this.#attemptId;
        const { phase, reason } = this.state;
        const restart = next !== undefined;
        if (next)
            this.#pending = [next];
        if (!restart) {
            this.#setState(this.#attempt || phase === "reconnecting"
                ? { phase: "reconnecting", reason, retryAt: null }
                : { phase: "connecting", reason: this.#tokens ? "waiting for a token" : "" });
        }
        const protocols = [SUBPROTOCOL];
        try {
            // Await even without tokens: the batch being dispatched must end before the cursor is read for the URL.
            const token = await (next || this.#tokens?.current());
            if (attemptId !== this.#attemptId)
                return;
            if (token)
                protocols.push(`bearer.${token}`);
            if (token && this.state.phase === "connecting")
                this.#setState({ phase: "connecting", reason: "" });
            const { url, snapshot } = this.#handlers.request(restart);
            this.#host = url.hostname;
            const transport = restart ? "stream" : await this.#fallback.choose(url, token ?? "");
            if (attemptId !== this.#attemptId)
                return;
            this.#fallback.transport = transport;
            if (transport === "stream") {
                this.#open(new StreamSocket({ url, token: token ?? "", snapshot, renewal: !!next }));
                return;
            }
            if (!this.#Socket)
                throw new TypeError("no WebSocket implementation found: set the WebSocket option");
            this.#open(new this.#Socket(url.href, protocols));
        }
        catch (error) {
            if (attemptId !== this.#attemptId)
                return;
            const text = error instanceof Error ? error.message : String(error);
            if (error instanceof TokenError && !error.final)
                this.#retry(text);
            else
                this.close(text);
        }
    }
    #open(socket) {
        this.#socket = socket;
        socket.onmessage = ({ data }) => socket === this.#socket && this.#received(data);
        // Browsers give no message here, Node does.
        socket.onerror = ({ message }) => void (this.#socketError = message ?? "");
        socket.onclose = (event) => socket === this.#socket && this.#closed(event.code, event.reason);
        this.#expectWithin(OPENING_MS);
    }
    #received(data) {
        let message;
        try {
            message = JSON.parse(String(data));
        }
        catch {
            this.#retry("the relay sent invalid JSON");
            return;
        }
        this.#deadline =
            performance.now() + (this.#heartbeatMs ? this.#heartbeatMs + HEARTBEAT_GRACE_MS : OPENING_MS);
        switch (message?.type) {
            case "welcome":
                if (message.protocol !== SUBPROTOCOL) {
                    this.close(`the relay speaks ${String(message.protocol)}; this client speaks ${SUBPROTOCOL}`);
                    return;
                }
                this.#heartbeatMs = message.heartbeat_ms;
                this.#expectWithin(this.#heartbeatMs + HEARTBEAT_GRACE_MS);
                this.#tokens?.accepted();
                this.#fallback.opened();
                break;
            case "token_expiring":
                void this.#renew(0);
                break;
            case "error":
                this.#refusedAuth = message.ref === "auth" ? this.#authAnswered() : "";
                if (this.#refusedAuth && message.code === "unavailable") {
                    this.#refusedAuth = "";
                    this.#tokens?.deferred();
                    this.#renewLater(0);
                }
                break;
            case "bye":
                this.#bye = message;
        }
        if (message)
            this.#handlers.receive(message);
    }
    #closed(closeCode, closeReason) {
        const code = this.#bye?.code ?? closeCode;
        const { meaning, reconnect } = closeRule(code);
        if (code === 1006 && !this.#heartbeatMs)
            this.#fallback.failed();
        // Without a heartbeat interval there was no welcome: the relay is unreachable, or rejects this page.
        const fallback = code === 1006 && !this.#heartbeatMs ? "could not connect" : meaning;
        const reason = this.#bye?.reason || closeReason || this.#socketError || fallback;
        if (reconnect === "never") {
            this.close(reason);
        }
        else if (!this.#tokens && (reconnect === "new_token" || (code === 4408 && !this.#heartbeatMs))) {
            this.close(`the relay requires a token, but no token() is set: ${reason}`);
        }
        else {
            if (reconnect === "new_token")
                this.#tokens?.rejected(reason, this.#refusedAuth);
            this.#retry(reason, this.#bye?.retry_after_ms);
        }
    }
    #retry(reason, retryAfterMs = null) {
        if (this.subscribed && performance.now() - this.#subscribedAt > STABLE_MS)
            this.#attempt = 0;
        this.#drop();
        this.#serverDelay = retryAfterMs !== null;
        this.#waitToRetry(reason, backoffMs(this.#attempt++, retryAfterMs));
    }
    /** Wait before the next attempt; while the device is offline, wait for the network. */
    #waitToRetry(reason = "", ms = null) {
        if (isOffline(this.#host)) {
            clearTimeout(this.#timers.retry);
            this.#setState({ phase: "reconnecting", reason: "this device is offline", retryAt: null });
        }
        else if (ms !== null) {
            this.#timers.retry = setTimeout(() => void this.#dial(), ms);
            this.#setState({ phase: "reconnecting", reason, retryAt: Date.now() + ms });
        }
        this.#idle = true;
    }
    /** Handle a wake-up: reconnect unless the relay set the delay, or check that the connection is alive. */
    #wake() {
        const offline = this.state.phase === "reconnecting" && this.state.retryAt === null;
        if (this.#idle && (offline || !this.#serverDelay)) {
            if (!isOffline(this.#host))
                void this.#dial();
        }
        else if (this.subscribed && this.transport === "websocket") {
            this.send({ type: "ping" });
            this.#expectWithin(Math.min(PONG_MS, this.#deadline - performance.now()));
        }
    }
    /** Retry unless a message arrives in time. */
    #expectWithin(ms) {
        this.#deadline = performance.now() + ms;
        clearTimeout(this.#timers.watchdog);
        this.#timers.watchdog = setTimeout(() => {
            const left = this.#deadline - performance.now();
            if (left > 0)
                this.#expectWithin(left);
            else if (this.#heartbeatMs)
                this.#retry("connection timed out: no heartbeat");
            else {
                this.#fallback.failed();
                this.#retry("the relay does not respond");
            }
        }, ms);
    }
    #pollCatchUp(past) {
        this.#timers.catchUp = setTimeout(() => {
            if (past.caughtUp())
                this.#setState({ phase: "live", reason: "" });
            else
                this.#pollCatchUp(past);
        }, POLL_MS);
    }
    /** Remove and return the token of the `auth` being answered; earlier messages were answered before it. */
    #authAnswered() {
        const index = this.#pending.findIndex(Boolean);
        return this.#pending.splice(0, index + 1).pop() ?? "";
    }
    async #renew(attempt) {
        clearTimeout(this.#timers.renew);
        const renewal = ++this.#renewal;
        // Before the subscription, its `subscribed` could not be told from the answer to `auth`.
        const token = this.subscribed ? await this.#tokens?.next().catch(() => null) : null;
        if (renewal !== this.#renewal)
            return;
        if (token)
            this.send({ type: "auth", token });
        else if (this.#tokens)
            this.#renewLater(attempt);
    }
    #renewLater(attempt) {
        const wait = RENEW_MS + backoffMs(attempt);
        this.#timers.renew = setTimeout(() => void this.#renew(attempt + 1), wait);
    }
    #drop() {
        this.#attemptId++;
        this.#renewal++;
        for (const timer of Object.values(this.#timers))
            clearTimeout(timer);
        const socket = this.#socket;
        const silent = this.#deadline <= performance.now();
        this.#socket = this.#bye = null;
        this.#socketError = "";
        this.#heartbeatMs = 0;
        this.#refusedAuth = "";
        this.subscribed = this.#idle = false;
        // The URL carries the first filter.
        this.#pending = [""];
        this.#tokens?.deferred();
        if (!socket)
            return;
        socket.onmessage = socket.onclose = null;
        socket.close(1000);
        // Node would wait for a close frame from a dead peer before the process can exit.
        if (silent)
            socket.terminate?.();
    }
    #setState(state) {
        this.state = state;
        this.#handlers.changed(state);
    }
}
