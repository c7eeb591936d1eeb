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
import { type CatchUp, type State, type Transport } from "./state.js";
import { type Tokens } from "./tokens.js";
import { type ClientMessage, type RelayMessage } from "./types.js";
/** Part of the WebSocket interface that a client uses; browsers and `ws` implement it. */
export interface WebSocketLike {
    readonly readyState: number;
    onmessage: ((event: never) => void) | null;
    onerror: ((event: never) => void) | null;
    onclose: ((event: never) => void) | null;
    send(data: string): void;
    close(code?: number): void;
}
/** Constructor of a WebSocket. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;
/** Callbacks of a link. */
export interface LinkHandlers {
    /**
     * Return the URL for the next attempt, and whether it needs a snapshot; throw if it is invalid.
     *
     * @param restart set if a running stream is replaced, which always needs a snapshot
     */
    request(restart: boolean): {
        url: URL;
        snapshot: boolean;
    };
    /** Handle a message, which may be of a type unknown to this client. */
    receive(message: RelayMessage): void;
    /** Handle a change of state. */
    changed(state: State): void;
    /** Handle the relay's acceptance of a renewed token. */
    renewed(token: string): void;
}
export declare class Link {
    #private;
    state: State;
    /** Set once the session is subscribed: from then on `subscribe` is allowed and keeps the position. */
    subscribed: boolean;
    constructor(handlers: LinkHandlers, tokens: Tokens | null, Socket: WebSocketConstructor | undefined);
    /** Transport of the current attempt, or of the last one. */
    get transport(): Transport;
    /** Connect immediately, dropping any current connection. */
    start(): void;
    /** Close the link for good, with all its timers and listeners. */
    close(reason: string): void;
    /** Renew the token of the running session; without a session, the next attempt asks for a token anyway. */
    renew(): void;
    /** Send a message if the socket is open. */
    send(message: ClientMessage): void;
    /** Handle a `subscribed`; `past` detects when the session has caught up, if it started in the past. */
    onSubscribed(past: CatchUp | null): void;
}
