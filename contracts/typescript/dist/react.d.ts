import type { FunctionComponentElement, ProviderProps, ReactNode } from "react";
import type { Options, Received } from "./client.js";
import { type Connection, type Gateway, type LogRow } from "./stores.js";
export type { Connection, Gateway, LogRow } from "./stores.js";
interface Source {
    readonly url?: string | undefined;
    readonly options?: Options | undefined;
}
/** Props of `TickertapeProvider`: the URL and the options of `connect`. */
export interface TickertapeProviderProps extends Options {
    readonly url?: string | undefined;
    readonly children?: ReactNode;
}
/** Set the relay's URL and the options for all hooks below. */
export declare function TickertapeProvider(props: TickertapeProviderProps): FunctionComponentElement<ProviderProps<Source>>;
/** Return the connection state, and the client for everything that has no hook. */
export declare function useTickertape(url?: string, options?: Options): Connection;
/** Return the latest status of each gateway, sorted by subject; removed gateways are left out. */
export declare function useGateways(url?: string): readonly Gateway[];
/** Options of `useLogs`. */
export interface LogsOptions {
    /** Maximum number of rows; 500 when omitted. */
    readonly limit?: number | undefined;
    /** Subject pattern; `log.>` when omitted. */
    readonly pattern?: string | undefined;
    readonly url?: string | undefined;
}
/** Return the latest log lines, oldest first; each gap between them is a row of its own. */
export declare function useLogs({ limit, pattern, url }?: LogsOptions): readonly LogRow[];
/** Call a handler for each event that a pattern selects, while the component is mounted. */
export declare function useEvents(pattern: string, handler: (event: Received) => void, url?: string): void;
