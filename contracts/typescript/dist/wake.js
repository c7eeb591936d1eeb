/** What a device tells a page about itself; nothing of it exists in Node, where a device never sleeps. */
/** Hosts that are reached without a network. */
const LOCAL = /^(localhost|127\.[\d.]+|\[::1\])$/;
/** True when there is no use in trying: the device says that it is offline, and the host is another one. */
export function isOffline(host) {
    return globalThis.navigator?.onLine === false && !LOCAL.test(host);
}
/**
 * Listen until `signal` ends it.
 *
 * @param woken the network is back, or the page is looked at again
 * @param lost the network is gone
 */
export function watchDevice(signal, woken, lost) {
    globalThis.addEventListener?.("online", woken, { signal });
    globalThis.addEventListener?.("offline", lost, { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.visibilityState === "visible" && woken(), { signal });
}
