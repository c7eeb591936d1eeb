/**
 * Feed of a relay: many handlers over one socket, which resumes from its cursor after a disconnect.
 *
 * Invariants:
 * 1. The cursor is the last one that the relay sent, and advances only after the events before it were
 *    dispatched: disconnecting at any moment and resuming loses no event and delivers none twice.
 * 2. The end of a gap becomes the cursor only after a reset: otherwise events inside the gap may still come.
 * 3. The subscription covers the patterns of all handlers; each handler gets what its own pattern selects.
 */
import type { Client, Filter, Options, Received } from "./client.js";
import { type Off } from "./signal.js";
import { type State, type Transport, type Upstream } from "./state.js";
import type { Cursor, GapMessage, RelayMessage } from "./types.js";
export declare class Feed implements Client {
    #private;
    upstream: Upstream;
    cursor: Cursor | null;
    truncated: number;
    constructor(url: string | URL, options: Options);
    get state(): State;
    get transport(): Transport;
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
