"use client";
/**
 * React hooks for Tickertape: they render at most once per frame and share one connection per URL.
 *
 * The URL is the hook's argument, else that of `TickertapeProvider`, else `NEXT_PUBLIC_WS_URL`, else `/ws` on
 * the page's origin. Connections are opened when a component mounts, never on a server.
 */
import { createContext, createElement, useContext, useEffect, useRef, useSyncExternalStore } from "react";
import { sharedFeed } from "./shared.js";
import { NO_CONNECTION, NO_GATEWAYS, NO_ROWS } from "./stores.js";
function configuredUrl() {
    try {
        // Next.js replaces exactly this expression by its value; elsewhere `process` may not exist.
        return process.env.NEXT_PUBLIC_WS_URL;
    }
    catch {
        return undefined;
    }
}
const Context = createContext({});
/** Set the relay's URL and the options for all hooks below. */
export function TickertapeProvider(props) {
    const { url, children, ...options } = props;
    return createElement(Context.Provider, { value: { url, options } }, children);
}
function useFeed(url, options) {
    const source = useContext(Context);
    return sharedFeed(url ?? source.url ?? (configuredUrl() || "/ws"), options ?? source.options);
}
/** Return the connection state, and the client for everything that has no hook. */
export function useTickertape(url, options) {
    const { connection } = useFeed(url, options);
    return useSyncExternalStore(connection.subscribe, connection.getSnapshot, () => NO_CONNECTION);
}
/** Return the latest status of each gateway, sorted by subject; removed gateways are left out. */
export function useGateways(url) {
    const { gateways } = useFeed(url);
    return useSyncExternalStore(gateways.subscribe, gateways.getSnapshot, () => NO_GATEWAYS);
}
/** Return the latest log lines, oldest first; each gap between them is a row of its own. */
export function useLogs({ limit = 500, pattern = "log.>", url } = {}) {
    const logs = useFeed(url).logs(pattern, limit);
    return useSyncExternalStore(logs.subscribe, logs.getSnapshot, () => NO_ROWS);
}
/** Call a handler for each event that a pattern selects, while the component is mounted. */
export function useEvents(pattern, handler, url) {
    const feed = useFeed(url);
    const latest = useRef(handler);
    useEffect(() => {
        latest.current = handler;
    });
    useEffect(() => {
        const [client, release] = feed.acquire();
        const off = client.on(pattern, (event) => latest.current(event));
        return () => {
            off();
            release();
        };
    }, [feed, pattern]);
}
