/**
 * Feed of a relay: many handlers over one socket, which resumes from its cursor after a disconnect.
 *
 * Invariants:
 * 1. The cursor is the last one that the relay sent, and advances only after the events before it were
 *    dispatched: disconnecting at any moment and resuming loses no event and delivers none twice.
 * 2. The end of a gap becomes the cursor only after a reset: otherwise events inside the gap may still come.
 * 3. The subscription covers the patterns of all handlers; each handler gets what its own pattern selects.
 */
import { loadCursor, saveCursor } from "./cursors.js";
import { Link } from "./link.js";
import { checkWhere, covers, fitsUrl, isPattern, union } from "./patterns.js";
import { call, Signal } from "./signal.js";
import { CatchUp } from "./state.js";
import { Tokens } from "./tokens.js";
/** Maximum number of subjects whose listeners are cached. */
const MAX_ROUTES = 2_000;
export class Feed {
    upstream = { connected: true, since: null };
    cursor = null;
    truncated = 0;
    #url;
    #options;
    #filterOptions;
    #link;
    #gaps = new Signal();
    #upstreams = new Signal();
    #states = new Signal();
    #messages = new Signal();
    #renewals = new Signal();
    #listeners = new Set();
    #routes = new Map();
    #phase = "new";
    #scheduled = false;
    #catchUp = null;
    #requested = { type: "subscribe" };
    // Filters sent on a socket are numbered, and so are their answers and snapshots. A new handler needs the
    // snapshot of filter `needed` or of a later one; resuming from a cursor yields none.
    #needed = 1;
    #sent = 0;
    #answered = 0;
    #snapshots = 0;
    constructor(url, options) {
        checkWhere(options.where);
        this.#url = url;
        this.#options = this.#filterOptions = options;
        const tokens = options.token ? new Tokens(options.token) : null;
        const Socket = options.WebSocket ?? globalThis.WebSocket;
        this.#link = new Link({
            request: (restart) => {
                const url = this.#buildUrl(restart);
                return { url, snapshot: this.#needed > 0 };
            },
            receive: (message) => this.#receive(message),
            changed: (state) => {
                if (state.phase === "closed")
                    this.#phase = "closed";
                this.#states.emit(state);
            },
            renewed: (token) => this.#renewals.emit(token),
        }, tokens, Socket);
        this.#schedule();
    }
    get state() {
        return this.#link.state;
    }
    get transport() {
        return this.#link.transport;
    }
    on(pattern, handler) {
        if (!isPattern(pattern))
            throw new TypeError(`invalid pattern '${pattern}': expected e.g. 'log.error.>'`);
        const listener = { pattern, handler, removed: false };
        this.#listeners.add(listener);
        this.#needed = this.#answered ? this.#sent + 1 : 1;
        this.#handlersChanged();
        return () => {
            listener.removed = true;
            if (this.#listeners.delete(listener))
                this.#handlersChanged();
        };
    }
    onGap(handler) {
        return this.#gaps.add(handler);
    }
    onUpstream(handler) {
        return this.#upstreams.add(handler);
    }
    onState(handler) {
        return this.#states.add(handler);
    }
    onMessage(handler) {
        return this.#messages.add(handler);
    }
    onRenewal(handler) {
        return this.#renewals.add(handler);
    }
    setFilter(filter) {
        checkWhere(filter.where);
        this.#filterOptions = filter;
        this.#schedule();
    }
    renew() {
        this.#link.renew();
    }
    reconnect() {
        if (this.#phase === "closed")
            this.#phase = this.cursor ? "running" : "new";
        if (this.#phase === "running")
            this.#link.start();
        else
            this.#schedule();
    }
    close() {
        if (this.#phase !== "closed")
            this.#link.close("closed by this client");
    }
    #handlersChanged() {
        this.#routes.clear();
        this.#schedule();
    }
    #schedule() {
        if (this.#scheduled)
            return;
        this.#scheduled = true;
        queueMicrotask(() => {
            this.#scheduled = false;
            if (this.#phase === "new" && this.#subjects().length)
                void this.#start();
            else
                this.#sendFilter();
        });
    }
    async #start() {
        this.#phase = "loading";
        const cursor = await loadCursor(this.#options.cursorStore);
        if (this.#phase !== "loading")
            return;
        this.cursor = cursor;
        this.#phase = "running";
        this.#link.start();
    }
    #subjects() {
        return [...(this.#filterOptions.subjects ?? union([...this.#listeners].map(({ pattern }) => pattern)))];
    }
    #filter() {
        const { level, where, mode, interval_ms } = this.#filterOptions;
        // Without handlers the last subscription stays, because no filter can select nothing.
        const subjects = this.#subjects();
        const requested = subjects.length ? subjects : this.#requested.subjects;
        const filter = { subjects: requested, level, where, mode, interval_ms };
        return { type: "subscribe", ...JSON.parse(JSON.stringify(filter)) };
    }
    #buildUrl(restart) {
        const url = new URL(this.#url, globalThis.location?.href);
        url.protocol = url.protocol.replace("http", "ws");
        if (url.pathname === "/")
            url.pathname = "/ws";
        this.#requested = this.#filter();
        // If the subjects do not fit into the URL, connect with wider ones; `#subscribed` then sends the exact ones.
        const { subjects, where } = this.#requested;
        if (subjects && !fitsUrl(subjects, where))
            this.#requested.subjects = union(subjects, where);
        const { type, ...filter } = this.#requested;
        for (const [name, value] of Object.entries(filter))
            url.searchParams.set(name, String(value));
        if (this.cursor)
            url.searchParams.set("cursor", this.cursor);
        else if (this.#options.since)
            url.searchParams.set("since", this.#options.since);
        this.#catchUp = this.cursor || this.#options.since ? new CatchUp() : null;
        this.#needed = restart || this.#needed > this.#snapshots ? 1 : 0;
        this.#sent = 1;
        this.#answered = this.#snapshots = 0;
        return url;
    }
    /** Send the filter if it changed, or if a handler still needs a snapshot. */
    #sendFilter() {
        const filter = this.#filter();
        const unchanged = JSON.stringify(filter) === JSON.stringify(this.#requested);
        if (!this.#link.subscribed || (unchanged && this.#needed <= this.#sent))
            return;
        this.#requested = filter;
        this.#sent++;
        this.#link.send(filter);
    }
    #receive(message) {
        switch (message.type) {
            case "welcome":
                // A relay without NATS reports that right after its welcome.
                if (!this.upstream.connected)
                    this.#upstream({ connected: true, since: null });
                break;
            case "subscribed":
                this.#subscribed(message);
                break;
            case "snapshot":
                if (!this.#dispatch(message.events, true))
                    return;
                if (message.done) {
                    this.#snapshots = this.#answered;
                    this.truncated = message.truncated ?? 0;
                }
                break;
            case "events":
                this.#catchUp?.observe(message.events.map((item) => item.event.timestamp), performance.now());
                if (!this.#dispatch(message.events, false))
                    return;
                this.#advance(message.cursor);
                break;
            case "gap":
                this.#gaps.emit(message);
                if (message.reason === "reset")
                    this.#advance(message.to);
                break;
            case "heartbeat":
                this.#advance(message.cursor);
                break;
            case "upstream":
                this.#upstream({ connected: message.state === "connected", since: message.since });
        }
        this.#messages.emit(message);
    }
    #subscribed({ cursor, resumed }) {
        const first = !this.#link.subscribed;
        // If the relay could not resume from our cursor, keep it until the gap that reports the loss.
        if (!first || resumed || !this.cursor)
            this.#advance(cursor);
        if (first || !resumed)
            this.#answered++;
        // A renewed token can trigger a snapshot that was not requested.
        this.#sent = Math.max(this.#sent, this.#answered);
        if (first && resumed && this.#needed)
            this.#needed = 2;
        this.#link.onSubscribed(this.#catchUp);
        this.#sendFilter();
    }
    #upstream(upstream) {
        this.upstream = upstream;
        this.#upstreams.emit(upstream);
    }
    #advance(cursor) {
        if (this.#phase !== "running" || cursor === this.cursor)
            return;
        this.cursor = cursor;
        saveCursor(this.#options.cursorStore, cursor);
    }
    /** Dispatch events; return false if a handler closed the feed, which stops before the next event. */
    #dispatch(items, snapshot) {
        for (const item of items) {
            const received = Object.assign(item, { snapshot });
            for (const listener of this.#route(item.subject)) {
                if (!listener.removed)
                    call(listener.handler, received);
                if (this.#phase !== "running")
                    return false;
            }
        }
        return true;
    }
    #route(subject) {
        let route = this.#routes.get(subject);
        if (!route) {
            route = [...this.#listeners].filter(({ pattern }) => covers(pattern, subject));
            if (this.#routes.size >= MAX_ROUTES)
                this.#routes.clear();
            this.#routes.set(subject, route);
        }
        return route;
    }
}
