/** Network and visibility events of the device; Node has none of them. */
/** Hosts that are reachable without a network. */
const LOCAL = /^(localhost|127\.[\d.]+|\[::1\])$/;
/** Return whether connecting is futile: the device reports that it is offline, and the host is remote. */
export function isOffline(host) {
    return globalThis.navigator?.onLine === false && !LOCAL.test(host);
}
/**
 * Listen to the device until `signal` is aborted.
 *
 * @param onWake called when the network is back or the page becomes visible
 * @param onOffline called when the network is lost
 */
export function watchDevice(signal, onWake, onOffline) {
    globalThis.addEventListener?.("online", onWake, { signal });
    globalThis.addEventListener?.("offline", onOffline, { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.visibilityState === "visible" && onWake(), { signal });
}
