/**
 * What React shows of a feed: values that change at most once a frame, each another object when it does.
 *
 * Invariants: a store follows the feed while somebody watches it; what it holds is bounded by its limit, or
 * by the number of gateways.
 */

import type { Client, Received } from "./client.js";
import { atNextFrame } from "./frames.js";
import type { Off } from "./signal.js";
import type { State, Upstream } from "./state.js";
import type { GapMessage, GatewayStatusChange, SystemLog } from "./types.js";

/** Lends a client for as long as somebody needs it. */
export interface Lender {
  borrow(): [client: Client, giveBack: Off];
}

/** A value for `useSyncExternalStore`. */
export abstract class Store<T> {
  readonly #lender: Lender;
  readonly #watchers = new Set<() => void>();
  #value: T;
  #stop: Off = () => {};

  constructor(lender: Lender, initial: T) {
    this.#lender = lender;
    this.#value = initial;
  }

  /** Nobody watches it. */
  get idle(): boolean {
    return this.#watchers.size === 0;
  }

  readonly get = (): T => this.#value;

  readonly watch = (changed: () => void): Off => {
    const watcher = (): void => changed();
    this.#watchers.add(watcher);
    if (this.#watchers.size === 1) {
      const [client, giveBack] = this.#lender.borrow();
      const offs = this.follow(client);
      this.#stop = () => [...offs, giveBack].forEach((off) => off());
      this.changed();
    }
    return () => {
      if (this.#watchers.delete(watcher) && this.#watchers.size === 0) this.#stop();
    };
  };

  /** Begin anew with a feed. */
  protected abstract follow(client: Client): Off[];

  /** The value as it is now. */
  protected abstract made(): T;

  protected changed(): void {
    atNextFrame(this.#publish);
  }

  readonly #publish = (): void => {
    if (this.#watchers.size === 0) return;
    this.#value = this.made();
    for (const watcher of [...this.#watchers]) watcher();
  };
}

/** How a feed stands, and the feed; null before it is used, as on a server. */
export interface Link {
  readonly state: State;
  readonly upstream: Upstream;
  readonly client: Client | null;
}

export const NO_LINK: Link = {
  state: { phase: "connecting", reason: "" },
  upstream: { connected: true, since: null },
  client: null,
};

export class LinkStore extends Store<Link> {
  #client: Client | null = null;

  constructor(lender: Lender) {
    super(lender, NO_LINK);
  }

  protected override follow(client: Client): Off[] {
    this.#client = client;
    return [client.onState(() => this.changed()), client.onUpstream(() => this.changed())];
  }

  protected override made(): Link {
    const client = this.#client;
    return client ? { client, state: client.state, upstream: client.upstream } : NO_LINK;
  }
}

/** The newest status of a gateway, and where it stands in the stream. */
export interface Gateway {
  readonly subject: string;
  readonly seq: number;
  readonly event: GatewayStatusChange;
}

export const NO_GATEWAYS: readonly Gateway[] = [];

export class GatewaysStore extends Store<readonly Gateway[]> {
  readonly #gateways = new Map<string, Gateway>();
  #order: string[] | null = null;

  constructor(lender: Lender) {
    super(lender, NO_GATEWAYS);
  }

  protected override follow(client: Client): Off[] {
    this.#clear();
    return [
      client.on("gateway.status.>", (received) => this.#take(received)),
      client.onGap(({ reason }) => {
        // Another stream: a snapshot follows, and what it does not have is gone.
        if (reason === "reset") this.#clear();
      }),
    ];
  }

  protected override made(): readonly Gateway[] {
    this.#order ??= [...this.#gateways.keys()].sort();
    return this.#order.flatMap((subject) => this.#gateways.get(subject) ?? []);
  }

  #take({ subject, seq, event }: Received): void {
    if (event.event_type !== "gateway_status_change") return;
    const known = this.#gateways.get(subject);
    // A snapshot can be of an earlier moment than what has come since.
    if (known && known.seq >= seq) return;
    if (!known) this.#order = null;
    if (event.current_status === "REMOVED") {
      this.#gateways.delete(subject);
      this.#order = null;
    } else {
      this.#gateways.set(subject, { subject, seq, event });
    }
    this.changed();
  }

  #clear(): void {
    this.#gateways.clear();
    this.#order = null;
    this.changed();
  }
}

/** A row of a log: a line, or lines that will not come. `key` is unique among the rows. */
export type LogRow =
  | {
      readonly kind: "line";
      readonly key: string;
      readonly subject: string;
      readonly seq: number;
      readonly event: SystemLog;
    }
  | { readonly kind: "gap"; readonly key: string; readonly gap: GapMessage };

export const NO_ROWS: readonly LogRow[] = [];

export class LogsStore extends Store<readonly LogRow[]> {
  readonly #limit: number;
  readonly #pattern: string;
  #rows: LogRow[] = [];
  #count = 0;

  constructor(lender: Lender, pattern: string, limit: number) {
    super(lender, NO_ROWS);
    this.#pattern = pattern;
    this.#limit = limit;
  }

  protected override follow(client: Client): Off[] {
    this.#rows = [];
    return [
      client.on(this.#pattern, ({ subject, seq, event, snapshot }) => {
        if (event.event_type === "system_log" && !snapshot) {
          this.#add({ kind: "line", key: this.#key(), subject, seq, event });
        }
      }),
      client.onGap((gap) => {
        const lines = Object.keys(gap.by).some((subject) => subject.startsWith("log."));
        if (lines || gap.dropped === null) this.#add({ kind: "gap", key: this.#key(), gap });
      }),
    ];
  }

  protected override made(): readonly LogRow[] {
    return this.#rows.slice(-this.#limit);
  }

  #key(): string {
    return String(++this.#count);
  }

  #add(row: LogRow): void {
    this.#rows.push(row);
    // Not for each row: that would move all of them each time.
    if (this.#rows.length >= 2 * this.#limit) this.#rows = this.#rows.slice(-this.#limit);
    this.changed();
  }
}
