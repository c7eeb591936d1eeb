/** What a device tells a page about itself; nothing of it exists in Node, where a device never sleeps. */
/** True when there is no use in trying: the device says that it is offline, and the host is another one. */
export declare function isOffline(host: string): boolean;
/**
 * Listen until `signal` ends it.
 *
 * @param woken the network is back, or the page is looked at again
 * @param lost the network is gone
 */
export declare function watchDevice(signal: AbortSignal, woken: () => void, lost: () => void): void;
