/**
 * What React shows of a feed: values that change at most once a frame, each another object when it does.
 *
 * Invariants: a store follows the feed while somebody watches it; what it holds is bounded by its limit, or
 * by the number of gateways.
 */
import { atNextFrame } from "./frames.js";
/** A value for `useSyncExternalStore`. */
export class Store {
    #lender;
    #watchers = new Set();
    #value;
    #stop = () => { };
    constructor(lender, initial) {
        this.#lender = lender;
        this.#value = initial;
    }
    /** Nobody watches it. */
    get idle() {
        return this.#watchers.size === 0;
    }
    get = () => this.#value;
    watch = (changed) => {
        const watcher = () => changed();
        this.#watchers.add(watcher);
        if (this.#watchers.size === 1) {
            const [client, giveBack] = this.#lender.borrow();
            const offs = this.follow(client);
            this.#stop = () => [...offs, giveBack].forEach((off) => off());
            this.changed();
        }
        return () => {
            if (this.#watchers.delete(watcher) && this.#watchers.size === 0)
                this.#stop();
        };
    };
    changed() {
        atNextFrame(this.#publish);
    }
    #publish = () => {
        if (this.#watchers.size === 0)
            return;
        this.#value = this.made();
        for (const watcher of [...this.#watchers])
            watcher();
    };
}
export const NO_LINK = {
    state: { phase: "connecting", reason: "" },
    upstream: { connected: true, since: null },
    client: null,
};
export class LinkStore extends Store {
    #client = null;
    constructor(lender) {
        super(lender, NO_LINK);
    }
    follow(client) {
        this.#client = client;
        return [client.onState(() => this.changed()), client.onUpstream(() => this.changed())];
    }
    made() {
        const client = this.#client;
        return client ? { client, state: client.state, upstream: client.upstream } : NO_LINK;
    }
}
export const NO_GATEWAYS = [];
export class GatewaysStore extends Store {
    #gateways = new Map();
    #order = null;
    constructor(lender) {
        super(lender, NO_GATEWAYS);
    }
    follow(client) {
        this.#clear();
        return [
            client.on("gateway.status.>", (received) => this.#take(received)),
            client.onGap(({ reason }) => {
                // Another stream: a snapshot follows, and what it does not have is gone.
                if (reason === "reset")
                    this.#clear();
            }),
        ];
    }
    made() {
        this.#order ??= [...this.#gateways.keys()].sort();
        return this.#order.flatMap((subject) => this.#gateways.get(subject) ?? []);
    }
    #take({ subject, seq, event }) {
        if (event.event_type !== "gateway_status_change")
            return;
        const known = this.#gateways.get(subject);
        // A snapshot can be of an earlier moment than what has come since.
        if (known && known.seq >= seq)
            return;
        if (!known)
            this.#order = null;
        if (event.current_status === "REMOVED") {
            this.#gateways.delete(subject);
            this.#order = null;
        }
        else {
            this.#gateways.set(subject, { subject, seq, event });
        }
        this.changed();
    }
    #clear() {
        this.#gateways.clear();
        this.#order = null;
        this.changed();
    }
}
export const NO_ROWS = [];
export class LogsStore extends Store {
    #limit;
    #pattern;
    #rows = [];
    #count = 0;
    constructor(lender, pattern, limit) {
        super(lender, NO_ROWS);
        this.#pattern = pattern;
        this.#limit = limit;
    }
    follow(client) {
        this.#rows = [];
        return [
            client.on(this.#pattern, ({ subject, seq, event, snapshot }) => {
                if (event.event_type === "system_log" && !snapshot) {
                    this.#add({ kind: "line", key: this.#key(), subject, seq, event });
                }
            }),
            client.onGap((gap) => {
                const lines = Object.keys(gap.by).some((subject) => subject.startsWith("log."));
                if (lines || gap.dropped === null)
                    this.#add({ kind: "gap", key: this.#key(), gap });
            }),
        ];
    }
    made() {
        return this.#rows.slice(-this.#limit);
    }
    #key() {
        return String(++this.#count);
    }
    #add(row) {
        this.#rows.push(row);
        // Not for each row: that would move all of them each time.
        if (this.#rows.length >= 2 * this.#limit)
            this.#rows = this.#rows.slice(-this.#limit);
        this.changed();
    }
}
