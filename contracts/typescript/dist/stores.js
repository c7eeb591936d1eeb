/**
 * Stores behind the React hooks: immutable values that change at most once per frame.
 *
 * Invariants: a store follows the feed only while it has subscribers; its size is bounded by its limit or by
 * the number of gateways.
 */
import { atNextFrame } from "./frames.js";
/** Store for `useSyncExternalStore`. */
export class Store {
    #source;
    #subscribers = new Set();
    #value;
    #stop = () => { };
    constructor(source, initial) {
        this.#source = source;
        this.#value = initial;
    }
    /** Set while the store has no subscribers. */
    get idle() {
        return this.#subscribers.size === 0;
    }
    getSnapshot = () => this.#value;
    subscribe = (changed) => {
        const subscriber = () => changed();
        this.#subscribers.add(subscriber);
        if (this.#subscribers.size === 1) {
            const [client, release] = this.#source.acquire();
            const offs = this.attach(client);
            this.#stop = () => [...offs, release].forEach((off) => off());
            this.changed();
        }
        return () => {
            if (this.#subscribers.delete(subscriber) && this.#subscribers.size === 0)
                this.#stop();
        };
    };
    changed() {
        atNextFrame(this.#publish);
    }
    #publish = () => {
        if (this.#subscribers.size === 0)
            return;
        this.#value = this.compute();
        for (const subscriber of [...this.#subscribers])
            subscriber();
    };
}
export const NO_CONNECTION = {
    state: { phase: "connecting", reason: "" },
    upstream: { connected: true, since: null },
    truncated: 0,
    client: null,
};
export class ConnectionStore extends Store {
    #client = null;
    constructor(source) {
        super(source, NO_CONNECTION);
    }
    attach(client) {
        this.#client = client;
        return [
            client.onState(() => this.changed()),
            client.onUpstream(() => this.changed()),
            client.onMessage((message) => {
                if (message.type === "snapshot" && message.done)
                    this.changed();
            }),
        ];
    }
    compute() {
        const client = this.#client;
        if (!client)
            return NO_CONNECTION;
        const { state, upstream, truncated } = client;
        return { client, state, upstream, truncated };
    }
}
/** Maximum number of gateways; a relay holds no more. Those that have not changed for the longest time are dropped. */
const MAX_GATEWAYS = 100_000;
export const NO_GATEWAYS = [];
export class GatewaysStore extends Store {
    #gateways = new Map();
    #order = null;
    constructor(source) {
        super(source, NO_GATEWAYS);
    }
    attach(client) {
        this.#clear();
        return [
            client.on("gateway.status.>", (received) => this.#take(received)),
            client.onGap(({ reason }) => {
                // The stream was recreated: a snapshot follows, and gateways that are not in it no longer exist.
                if (reason === "reset")
                    this.#clear();
            }),
        ];
    }
    compute() {
        this.#order ??= [...this.#gateways.keys()].sort();
        return this.#order.flatMap((subject) => this.#gateways.get(subject) ?? []);
    }
    #take({ subject, seq, event }) {
        if (event.event_type !== "gateway_status_change")
            return;
        const known = this.#gateways.get(subject);
        // A snapshot can be older than the events received since it was taken.
        if (known && known.seq >= seq)
            return;
        if (!known)
            this.#order = null;
        if (event.current_status === "REMOVED") {
            this.#gateways.delete(subject);
            this.#order = null;
        }
        else {
            this.#gateways.delete(subject); // moves it to the end: a map keeps the order of insertion
            this.#gateways.set(subject, { subject, seq, event });
            if (this.#gateways.size > MAX_GATEWAYS) {
                this.#gateways.delete(this.#gateways.keys().next().value ?? "");
                this.#order = null;
            }
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
    constructor(source, pattern, limit) {
        super(source, NO_ROWS);
        this.#pattern = pattern;
        this.#limit = limit;
    }
    attach(client) {
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
    compute() {
        return this.#rows.slice(-this.#limit);
    }
    #key() {
        return String(++this.#count);
    }
    #add(row) {
        this.#rows.push(row);
        // Trim in bulk: trimming on each row would copy all rows each time.
        if (this.#rows.length >= 2 * this.#limit)
            this.#rows = this.#rows.slice(-this.#limit);
        this.changed();
    }
}
