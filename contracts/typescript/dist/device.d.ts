/** Network and visibility events of the device; Node has none of them. */
/** Return whether connecting is futile: the device reports that it is offline, and the host is remote. */
export declare function isOffline(host: string): boolean;
/**
 * Listen to the device until `signal` is aborted.
 *
 * @param onWake called when the network is back or the page becomes visible
 * @param onOffline called when the network is lost
 */
export declare function watchDevice(signal: AbortSignal, onWake: () => void, onOffline: () => void): void;
