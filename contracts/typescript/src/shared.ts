/**
 * Feeds that all users of the same URL in a page share.
 *
 * Invariants: a feed is opened by its first user and closed shortly after its last. On a server nothing is
 * shared, because its pages belong to different users.
 */

import { connect, type Client, type Options } from "./client.js";
import type { Off } from "./signal.js";
import { ConnectionStore, GatewaysStore, LogsStore, type ClientSource } from "./stores.js";

/** Time in milliseconds that a feed outlives its last user: React unmounts and remounts components, and pages change. */
const LINGER_MS = 250;

/** Number of log stores kept; above it, those without subscribers are discarded. */
const MAX_LOGS = 8;

export class SharedFeed implements ClientSource {
  options: Options = {};
  readonly connection = new ConnectionStore(this);
  readonly gateways = new GatewaysStore(this);

  readonly #url: string;
  readonly #logs = new Map<string, LogsStore>();
  #client: Client | null = null;
  #users = 0;
  #closeTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string) {
    this.#url = url;
  }

  acquire(): [Client, Off] {
    clearTimeout(this.#closeTimer);
    this.#users++;
    const { token } = this.options;
    // Use the token function of the latest render: it closes over the props of that render.
    const latest = token && { token: () => (this.options.token ?? token)() };
    this.#client ??= connect(this.#url, { ...this.options, ...latest });
    let held = true;
    return [
      this.#client,
      () => {
        if (!held) return;
        held = false;
        if (--this.#users === 0) this.#closeTimer = setTimeout(() => this.#close(), LINGER_MS);
      },
    ];
  }

  logs(pattern: string, limit: number): LogsStore {
    const key = `${limit} ${pattern}`;
    let store = this.#logs.get(key);
    if (!store) {
      if (this.#logs.size >= MAX_LOGS) {
        for (const [other, { idle }] of this.#logs) if (idle) this.#logs.delete(other);
      }
      store = new LogsStore(this, pattern, limit);
      this.#logs.set(key, store);
    }
    return store;
  }

  #close(): void {
    this.#client?.close();
    this.#client = null;
    this.#logs.clear();
  }
}

const feeds = new Map<string, SharedFeed>();

/** Return the feed of a URL. `options` apply to the next connection; a new `token` function applies immediately. */
export function sharedFeed(url: string, options?: Options): SharedFeed {
  let feed = feeds.get(url);
  if (!feed) {
    feed = new SharedFeed(url);
    if (typeof window !== "undefined") feeds.set(url, feed);
  }
  if (options) feed.options = options;
  return feed;
}
