/**
 * The link to the relay: one WebSocket at a time, its token, and its return after a loss.
 *
 * Invariants:
 * 1. Whatever arrives on a socket that was given up is ignored.
 * 2. A link that is silent for longer than its heartbeat and ten seconds is dead, whatever the socket says.
 * 3. While it is closed there is no timer, no listener and no socket.
 * 4. Waits are durations: no clock is compared with the relay's.
 * 5. The relay answers in order, an `auth` with the same `subscribed` as a `subscribe`: a token counts as taken
 *    only at the answer to the message that brought it.
 */
import { closeRule, waitBefore } from "./closing.js";
import { LOOK_MS } from "./state.js";
import { TokenError } from "./tokens.js";
import { SUBPROTOCOL } from "./types.js";
import { isOffline, watchDevice } from "./wake.js";
/** Patience beyond the relay's heartbeat, with one that has yet to speak, and with one that is asked. */
const DEAD_AFTER_HEARTBEAT_MS = 10_000;
const OPENING_MS = 10_000;
const ANSWER_MS = 5_000;
/** A session that ran so long was no failure: what follows it is the first attempt. */
const STABLE_MS = 10_000;
/** Between two questions for a token that is to renew one in use, at least. */
const RENEW_MS = 2_000;
export class Link {
    state = { phase: "connecting", reason: "" };
    /** The session follows something: `subscribe` is legal, and loses no place. */
    begun = false;
    #user;
    #tokens;
    #Socket;
    #socket = null;
    #listening = null;
    #turn = 0;
    /** Which question for a next token counts. */
    #question = 0;
    /** What is yet to be answered by `subscribed`: the token of an `auth`, empty for a filter. */
    #unanswered = [];
    #attempt = 0;
    #host = "";
    /** Nothing is under way: the next attempt waits for its time, or for the network. */
    #idle = false;
    /** The relay named the time of the next attempt. */
    #named = false;
    #timers = {
        retry: undefined,
        watch: undefined,
        look: undefined,
        renew: undefined,
    };
    #heartbeatMs = 0;
    #due = 0;
    #beganAt = 0;
    #bye = null;
    #refusedAuth = "";
    #fault = "";
    constructor(user, tokens, Socket) {
        this.#user = user;
        this.#tokens = tokens;
        this.#Socket = Socket;
    }
    /** Connect now, whatever is going on. */
    start() {
        if (!this.#listening) {
            this.#listening = new AbortController();
            watchDevice(this.#listening.signal, () => this.#woken(), () => this.#idle && this.#wait());
        }
        this.#attempt = 0;
        this.#tokens?.forgive();
        void this.#dial();
    }
    /** Stop, and leave nothing behind. */
    end(reason) {
        this.#drop();
        this.#listening?.abort();
        this.#listening = null;
        this.#say({ phase: "closed", reason });
    }
    /** Have a session go on with the next token, once there is one; without a session, the next one will. */
    renew() {
        if (this.begun)
            void this.#renew(0);
    }
    /** Send a message, if there is somebody to send it to. */
    send(message) {
        if (this.#socket?.readyState !== 1)
            return;
        this.#socket.send(JSON.stringify(message));
        if (message.type !== "ping")
            this.#unanswered.push(message.type === "auth" ? message.token : "");
    }
    /** The session follows something from here on; `past` tells when it has caught up, if it has to. */
    follow(past) {
        const token = this.#unanswered.shift();
        if (token) {
            this.#tokens?.taken(token);
            this.#question++;
            clearTimeout(this.#timers.renew);
            this.#user.renewed(token);
        }
        if (this.begun)
            return;
        this.begun = true;
        this.#beganAt = performance.now();
        this.#say({ phase: past ? "catching-up" : "live", reason: "" });
        if (past)
            this.#look(past);
    }
    async #dial() {
        this.#drop();
        const turn = this.#turn;
        const { phase, reason } = this.state;
        this.#say(this.#attempt || phase === "reconnecting"
            ? { phase: "reconnecting", reason, retryAt: null }
            : { phase: "connecting", reason: this.#tokens ? "waiting for a token" : "" });
        const protocols = [SUBPROTOCOL];
        try {
            // Without tokens too this comes back later: a frame that is being handed on must end before the next place.
            const token = await this.#tokens?.current();
            if (turn !== this.#turn)
                return;
            if (token)
                protocols.push(`bearer.${token}`);
            if (token && this.state.phase === "connecting")
                this.#say({ phase: "connecting", reason: "" });
            const url = this.#user.address();
            this.#host = url.hostname;
            if (!this.#Socket)
                throw new TypeError("there is no WebSocket here; give one in the options");
            this.#open(new this.#Socket(url.href, protocols));
        }
        catch (error) {
            if (turn !== this.#turn)
                return;
            const text = error instanceof Error ? error.message : String(error);
            if (error instanceof TokenError && !error.final)
                this.#retry(text);
            else
                this.end(text);
        }
    }
    #open(socket) {
        this.#socket = socket;
        socket.onmessage = ({ data }) => socket === this.#socket && this.#received(data);
        // A browser says nothing here; Node says why.
        socket.onerror = ({ message }) => void (this.#fault = message ?? "");
        socket.onclose = (event) => socket === this.#socket && this.#closed(event.code, event.reason);
        this.#expect(OPENING_MS);
    }
    #received(data) {
        let message;
        try {
            message = JSON.parse(String(data));
        }
        catch {
            this.#retry("the relay sent what is not JSON");
            return;
        }
        this.#due =
            performance.now() + (this.#heartbeatMs ? this.#heartbeatMs + DEAD_AFTER_HEARTBEAT_MS : OPENING_MS);
        switch (message?.type) {
            case "welcome":
                if (message.protocol !== SUBPROTOCOL) {
                    this.end(`the relay speaks ${String(message.protocol)}; this client speaks ${SUBPROTOCOL}`);
                    return;
                }
                this.#heartbeatMs = message.heartbeat_ms;
                this.#expect(this.#heartbeatMs + DEAD_AFTER_HEARTBEAT_MS);
                this.#tokens?.taken();
                break;
            case "token_expiring":
                void this.#renew(0);
                break;
            case "error":
                this.#refusedAuth = message.ref === "auth" ? this.#authAnswered() : "";
                if (this.#refusedAuth && message.code === "unavailable") {
                    this.#refusedAuth = "";
                    this.#tokens?.postponed();
                    this.#renewLater(0);
                }
                break;
            case "bye":
                this.#bye = message;
        }
        if (message)
            this.#user.receive(message);
    }
    #closed(closeCode, closeReason) {
        const code = this.#bye?.code ?? closeCode;
        const { meaning, reconnect } = closeRule(code);
        // Without a heartbeat named there was no welcome: the relay is away, or does not let this page in.
        const found = code === 1006 && !this.#heartbeatMs ? "no connection came about" : meaning;
        const reason = this.#bye?.reason || closeReason || this.#fault || found;
        if (reconnect === "never") {
            this.end(reason);
        }
        else if (!this.#tokens && (reconnect === "new_token" || (code === 4408 && !this.#heartbeatMs))) {
            this.end(`the relay wants a token, and there is no token(): ${reason}`);
        }
        else {
            if (reconnect === "new_token")
                this.#tokens?.refused(reason, this.#refusedAuth);
            this.#retry(reason, this.#bye?.retry_after_ms);
        }
    }
    #retry(reason, retryAfterMs = null) {
        if (this.begun && performance.now() - this.#beganAt > STABLE_MS)
            this.#attempt = 0;
        this.#drop();
        this.#named = retryAfterMs !== null;
        this.#wait(reason, waitBefore(this.#attempt++, retryAfterMs));
    }
    /** Wait for a time; without a network, for that. */
    #wait(reason = "", ms = null) {
        if (isOffline(this.#host)) {
            clearTimeout(this.#timers.retry);
            this.#say({ phase: "reconnecting", reason: "this device is offline", retryAt: null });
        }
        else if (ms !== null) {
            this.#timers.retry = setTimeout(() => void this.#dial(), ms);
            this.#say({ phase: "reconnecting", reason, retryAt: Date.now() + ms });
        }
        this.#idle = true;
    }
    /** The network or the reader is back: return at once, unless the relay named the time; or see who is there. */
    #woken() {
        const offline = this.state.phase === "reconnecting" && this.state.retryAt === null;
        if (this.#idle && (offline || !this.#named)) {
            if (!isOffline(this.#host))
                void this.#dial();
        }
        else if (this.begun) {
            this.send({ type: "ping" });
            this.#expect(Math.min(ANSWER_MS, this.#due - performance.now()));
        }
    }
    /** Give the link so long to say something. */
    #expect(ms) {
        this.#due = performance.now() + ms;
        clearTimeout(this.#timers.watch);
        this.#timers.watch = setTimeout(() => {
            const left = this.#due - performance.now();
            if (left > 0)
                this.#expect(left);
            else if (this.#heartbeatMs)
                this.#retry("the link is dead: not even a heartbeat came");
            else
                this.#retry("the relay does not answer");
        }, ms);
    }
    #look(past) {
        this.#timers.look = setTimeout(() => {
            if (past.reached())
                this.#say({ phase: "live", reason: "" });
            else
                this.#look(past);
        }, LOOK_MS);
    }
    /** The token of the `auth` that is answered now; what was sent before it was answered before it. */
    #authAnswered() {
        const place = this.#unanswered.findIndex(Boolean);
        return this.#unanswered.splice(0, place + 1).pop() ?? "";
    }
    async #renew(attempt) {
        clearTimeout(this.#timers.renew);
        const question = ++this.#question;
        // Before a session begins, its first answer might be that of both.
        const token = this.begun ? await this.#tokens?.next().catch(() => null) : null;
        if (question !== this.#question)
            return;
        if (token)
            this.send({ type: "auth", token });
        else if (this.#tokens)
            this.#renewLater(attempt);
    }
    #renewLater(attempt) {
        const wait = RENEW_MS + waitBefore(attempt);
        this.#timers.renew = setTimeout(() => void this.#renew(attempt + 1), wait);
    }
    #drop() {
        this.#turn++;
        this.#question++;
        for (const timer of Object.values(this.#timers))
            clearTimeout(timer);
        const socket = this.#socket;
        const silent = this.#due <= performance.now();
        this.#socket = this.#bye = null;
        this.#fault = "";
        this.#heartbeatMs = 0;
        this.#refusedAuth = "";
        this.begun = this.#idle = false;
        // The address has the first filter.
        this.#unanswered = [""];
        this.#tokens?.postponed();
        if (!socket)
            return;
        socket.onmessage = socket.onclose = null;
        socket.close(1000);
        // Node would wait for a dead peer's answer before it ends.
        if (silent)
            socket.terminate?.();
    }
    #say(state) {
        this.state = state;
        this.#user.changed(state);
    }
}
