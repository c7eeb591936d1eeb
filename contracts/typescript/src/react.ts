"use client";

/**
 * Tickertape in React: hooks that render at most once a frame, over one connection for each address.
 *
 * They take the address from their argument, else from `TickertapeProvider`, else from `NEXT_PUBLIC_WS_URL`,
 * else it is `/ws` of the page's own origin. Connections are made once a component is mounted, never on a
 * server.
 */

import { createContext, createElement, useContext, useEffect, useRef, useSyncExternalStore } from "react";
import type { FunctionComponentElement, ProviderProps, ReactNode } from "react";

import type { Options, Received } from "./client.js";
import { sharedFeed, type SharedFeed } from "./shared.js";
import { NO_GATEWAYS, NO_LINK, NO_ROWS, type Gateway, type Link, type LogRow } from "./stores.js";

export type { Gateway, Link, LogRow } from "./stores.js";

declare const process: { env: { NEXT_PUBLIC_WS_URL?: string } };

function configured(): string | undefined {
  try {
    // Next.js puts the value in place of this very text; elsewhere there may be no `process` at all.
    return process.env.NEXT_PUBLIC_WS_URL;
  } catch {
    return undefined;
  }
}

interface Source {
  readonly url?: string | undefined;
  readonly options?: Options | undefined;
}

const Context = createContext<Source>({});

/** What a provider takes: the address, and what `connect` takes. */
export interface TickertapeProviderProps extends Options {
  readonly url?: string | undefined;
  readonly children?: ReactNode;
}

/** Say once, for all hooks below, where the relay is and how to follow it. */
export function TickertapeProvider(
  props: TickertapeProviderProps,
): FunctionComponentElement<ProviderProps<Source>> {
  const { url, children, ...options } = props;
  return createElement(Context.Provider, { value: { url, options } }, children);
}

function useFeed(url?: string, options?: Options): SharedFeed {
  const source = useContext(Context);
  return sharedFeed(url ?? source.url ?? (configured() || "/ws"), options ?? source.options);
}

/** How the connection stands, and the client behind it for whatever has no hook of its own. */
export function useTickertape(url?: string, options?: Options): Link {
  const { link } = useFeed(url, options);
  return useSyncExternalStore(link.watch, link.get, () => NO_LINK);
}

/** The newest status of each gateway, in the order of their subjects; removed ones leave. */
export function useGateways(url?: string): readonly Gateway[] {
  const { gateways } = useFeed(url);
  return useSyncExternalStore(gateways.watch, gateways.get, () => NO_GATEWAYS);
}

/** Which lines to show, and how many. */
export interface LogsOptions {
  /** The newest so many rows; 500 when omitted. */
  readonly limit?: number | undefined;
  /** `log.>` when omitted. */
  readonly pattern?: string | undefined;
  readonly url?: string | undefined;
}

/** The newest lines of the log, oldest first; what will not come stands between them as a row of its own. */
export function useLogs({ limit = 500, pattern = "log.>", url }: LogsOptions = {}): readonly LogRow[] {
  const logs = useFeed(url).logs(pattern, limit);
  return useSyncExternalStore(logs.watch, logs.get, () => NO_ROWS);
}

/** Call the latest handler with each event that a pattern selects, while the component is mounted. */
export function useEvents(pattern: string, handler: (event: Received) => void, url?: string): void {
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
