/**
 * A feed of a relay: many handlers over one socket, which comes back to its place after any loss.
 *
 * Invariants:
 * 1. The place is what the relay named last, and moves only after what lies before it was handed on: leaving
 *    at any moment and coming back loses nothing, and hands nothing on twice.
 * 2. The end of a gap is no place, but after a reset: what lies in the gap's range may still come.
 * 3. What the relay is asked for covers what the handlers want; each gets what its own pattern selects.
 */
import type { Client, Filter, Options, Received } from "./client.js";
import { type Off } from "./signal.js";
import { type State, type Upstream } from "./state.js";
import type { Cursor, GapMessage, RelayMessage } from "./types.js";
export declare class Feed implements Client {
    #private;
    upstream: Upstream;
    cursor: Cursor | null;
    constructor(url: string | URL, options: Options);
    get state(): State;
    on(pattern: string, handler: (event: Received) => void): Off;
    onGap(handler: (gap: GapMessage) => void): Off;
    onUpstream(handler: (upstream: Upstream) => void): Off;
    onState(handler: (state: State) => void): Off;
    onMessage(handler: (message: RelayMessage) => void): Off;
    onRenewal(handler: (token: string) => void): Off;
    setFilter(filter: Filter): void;
    renew(): void;
    reconnect(): void;
    close(): void;
}
