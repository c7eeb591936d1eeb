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
import { type CatchUp, type State } from "./state.js";
import { type Tokens } from "./tokens.js";
import { type ClientMessage, type RelayMessage } from "./types.js";
/** What a client needs of a WebSocket: a browser's has it, and so has that of `ws`. */
export interface WebSocketLike {
    readonly readyState: number;
    onmessage: ((event: never) => void) | null;
    onerror: ((event: never) => void) | null;
    onclose: ((event: never) => void) | null;
    send(data: string): void;
    close(code?: number): void;
}
/** Makes one. */
export type WebSocketMaker = new (url: string, protocols: string[]) => WebSocketLike;
/** What uses a link. */
export interface LinkUser {
    /** Where to connect now. Throws when that is no address. */
    address(): URL;
    /** A message came; types that this client does not know are among them. */
    receive(message: RelayMessage): void;
    /** The state is another one. */
    changed(state: State): void;
    /** The relay goes on with this token. */
    renewed(token: string): void;
}
export declare class Link {
    #private;
    state: State;
    /** The session follows something: `subscribe` is legal, and loses no place. */
    begun: boolean;
    constructor(user: LinkUser, tokens: Tokens | null, Socket: WebSocketMaker | undefined);
    /** Connect now, whatever is going on. */
    start(): void;
    /** Stop, and leave nothing behind. */
    end(reason: string): void;
    /** Have a session go on with the next token, once there is one; without a session, the next one will. */
    renew(): void;
    /** Send a message, if there is somebody to send it to. */
    send(message: ClientMessage): void;
    /** The session follows something from here on; `past` tells when it has caught up, if it has to. */
    follow(past: CatchUp | null): void;
}
