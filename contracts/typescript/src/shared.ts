/**
 * One feed for all of a page that use the same address, for as long as anybody does.
 *
 * Invariants: the feed begins with its first user and ends a moment after its last; on a server nothing is
 * shared, since its pages are different readers'.
 */

import { connect, type Client, type Options } from "./client.js";
import type { Off } from "./signal.js";
import { GatewaysStore, LinkStore, LogsStore, type Lender } from "./stores.js";

/** How long a feed outlives its last user: React takes components away and puts them back, pages change. */
const LINGER_MS = 250;

/** Logs that are kept for those who watch them; beyond that, those that nobody watches are let go. */
const MAX_LOGS = 8;

export class SharedFeed implements Lender {
  options: Options = {};
  readonly link = new LinkStore(this);
  readonly gateways = new GatewaysStore(this);

  readonly #url: string;
  readonly #logs = new Map<string, LogsStore>();
  #client: Client | null = null;
  #users = 0;
  #ending: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string) {
    this.#url = url;
  }

  borrow(): [Client, Off] {
    clearTimeout(this.#ending);
    this.#users++;
    const { token } = this.options;
    // The one of the latest render: what it closes over is of that.
    const latest = token && { token: () => (this.options.token ?? token)() };
    this.#client ??= connect(this.#url, { ...this.options, ...latest });
    let lent = true;
    return [
      this.#client,
      () => {
        if (!lent) return;
        lent = false;
        if (--this.#users === 0) this.#ending = setTimeout(() => this.#end(), LINGER_MS);
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

  #end(): void {
    this.#client?.close();
    this.#client = null;
    this.#logs.clear();
  }
}

const feeds = new Map<string, SharedFeed>();

/** The feed of an address; `options` count from the next connection on, its `token` at once. */
export function sharedFeed(url: string, options?: Options): SharedFeed {
  let feed = feeds.get(url);
  if (!feed) {
    feed = new SharedFeed(url);
    if (typeof window !== "undefined") feeds.set(url, feed);
  }
  if (options) feed.options = options;
  return feed;
}
