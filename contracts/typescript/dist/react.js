"use client";
/**
 * Tickertape in React: hooks that render at most once a frame, over one connection for each address.
 *
 * They take the address from their argument, else from `TickertapeProvider`, else from `NEXT_PUBLIC_WS_URL`,
 * else it is `/ws` of the page's own origin. Connections are made once a component is mounted, never on a
 * server.
 */
import { createContext, createElement, useContext, useEffect, useRef, useSyncExternalStore } from "react";
import { sharedFeed } from "./shared.js";
import { NO_GATEWAYS, NO_LINK, NO_ROWS } from "./stores.js";
function configured() {
    try {
        // Next.js puts the value in place of this very text; elsewhere there may be no `process` at all.
        return process.env.NEXT_PUBLIC_WS_URL;
    }
    catch {
        return undefined;
    }
}
const Context = createContext({});
/** Say once, for all hooks below, where the relay is and how to follow it. */
export function TickertapeProvider(props) {
    const { url, children, ...options } = props;
    return createElement(Context.Provider, { value: { url, options } }, children);
}
function useFeed(url, options) {
    const source = useContext(Context);
    return sharedFeed(url ?? source.url ?? (configured() || "/ws"), options ?? source.options);
}
/** How the connection stands, and the client behind it for whatever has no hook of its own. */
export function useTickertape(url, options) {
    const { link } = useFeed(url, options);
    return useSyncExternalStore(link.watch, link.get, () => NO_LINK);
}
/** The newest status of each gateway, in the order of their subjects; removed ones leave. */
export function useGateways(url) {
    const { gateways } = useFeed(url);
    return useSyncExternalStore(gateways.watch, gateways.get, () => NO_GATEWAYS);
}
/** The newest lines of the log, oldest first; what will not come stands between them as a row of its own. */
export function useLogs({ limit = 500, pattern = "log.>", url } = {}) {
    const logs = useFeed(url).logs(pattern, limit);
    return useSyncExternalStore(logs.watch, logs.get, () => NO_ROWS);
}
/** Call the latest handler with each event that a pattern selects, while the component is mounted. */
export function useEvents(pattern, handler, url) {
    const feed = useFeed(url);
    const latest = useRef(handler);
    useEffect(() => {
        latest.current = handler;
    });
    useEffect(() => {
        const [client, giveBack] = feed.borrow();
        const off = client.on(pattern, (event) => latest.current(event));
        return () => {
            off();
            giveBack();
        };
    }, [feed, pattern]);
}
