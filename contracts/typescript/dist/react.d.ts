import type { FunctionComponentElement, ProviderProps, ReactNode } from "react";
import type { Options, Received } from "./client.js";
import { type Gateway, type Link, type LogRow } from "./stores.js";
export type { Gateway, Link, LogRow } from "./stores.js";
interface Source {
    readonly url?: string | undefined;
    readonly options?: Options | undefined;
}
/** What a provider takes: the address, and what `connect` takes. */
export interface TickertapeProviderProps extends Options {
    readonly url?: string | undefined;
    readonly children?: ReactNode;
}
/** Say once, for all hooks below, where the relay is and how to follow it. */
export declare function TickertapeProvider(props: TickertapeProviderProps): FunctionComponentElement<ProviderProps<Source>>;
/** How the connection stands, and the client behind it for whatever has no hook of its own. */
export declare function useTickertape(url?: string, options?: Options): Link;
/** The newest status of each gateway, in the order of their subjects; removed ones leave. */
export declare function useGateways(url?: string): readonly Gateway[];
/** Which lines to show, and how many. */
export interface LogsOptions {
    /** The newest so many rows; 500 when omitted. */
    readonly limit?: number | undefined;
    /** `log.>` when omitted. */
    readonly pattern?: string | undefined;
    readonly url?: string | undefined;
}
/** The newest lines of the log, oldest first; what will not come stands between them as a row of its own. */
export declare function useLogs({ limit, pattern, url }?: LogsOptions): readonly LogRow[];
/** Call the latest handler with each event that a pattern selects, while the component is mounted. */
export declare function useEvents(pattern: string, handler: (event: Received) => void, url?: string): void;
