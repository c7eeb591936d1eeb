/**
 * A feed of a relay: many handlers over one socket, which comes back to its place after any loss.
 *
 * Invariants:
 * 1. The place is what the relay named last, and moves only after what lies before it was handed on: leaving
 *    at any moment and coming back loses nothing, and hands nothing on twice.
 * 2. The end of a gap is no place, but after a reset: what lies in the gap's range may still come.
 * 3. What the relay is asked for covers what the handlers want; each gets what its own pattern selects.
 */

import type { Client, Filter, Options, Received } from "./client.js";
import { loadCursor, saveCursor } from "./cursors.js";
import { Link, type WebSocketMaker } from "./link.js";
import { covers, fits, isPattern, union } from "./patterns.js";
import { call, Signal, type Off } from "./signal.js";
import { CatchUp, type State, type Upstream } from "./state.js";
import { Tokens } from "./tokens.js";
import type { Cursor, GapMessage, Item, RelayMessage, SubscribedMessage, SubscribeMessage } from "./types.js";

interface Listener {
  readonly pattern: string;
  readonly handler: (event: Received) => void;
  gone: boolean;
}

/** Subjects of which it is remembered who wants them. */
const MAX_ROUTES = 2_000;

export class Feed implements Client {
  upstream: Upstream = { connected: true, since: null };
  cursor: Cursor | null = null;

  readonly #url;
  readonly #options;
  #given: Filter;
  readonly #link;
  readonly #gaps = new Signal<GapMessage>();
  readonly #upstreams = new Signal<Upstream>();
  readonly #states = new Signal<State>();
  readonly #messages = new Signal<RelayMessage>();
  readonly #renewals = new Signal<string>();
  readonly #listeners = new Set<Listener>();
  readonly #routes = new Map<string, Listener[]>();
  #phase: "new" | "loading" | "running" | "closed" = "new";
  #scheduled = false;
  #past: CatchUp | null = null;
  #asked: SubscribeMessage = { type: "subscribe" };
  // Filters that this socket was given are numbered, and so is what answers them. A handler has to see how
  // things stand, from the snapshot of filter `needed` or a later one; a return by cursor brings none.
  #needed = 1;
  #sent = 0;
  #answered = 0;
  #seen = 0;

  constructor(url: string | URL, options: Options) {
    this.#url = url;
    this.#options = this.#given = options;
    const tokens = options.token ? new Tokens(options.token) : null;
    const Socket = options.WebSocket ?? (globalThis.WebSocket as WebSocketMaker | undefined);
    this.#link = new Link(
      {
        address: () => this.#address(),
        receive: (message) => this.#receive(message),
        changed: (state) => {
          if (state.phase === "closed") this.#phase = "closed";
          this.#states.emit(state);
        },
        renewed: (token) => this.#renewals.emit(token),
      },
      tokens,
      Socket,
    );
    this.#schedule();
  }

  get state(): State {
    return this.#link.state;
  }

  on(pattern: string, handler: (event: Received) => void): Off {
    if (!isPattern(pattern)) throw new TypeError(`'${pattern}' is no pattern such as 'log.error.>'`);
    const listener = { pattern, handler, gone: false };
    this.#listeners.add(listener);
    this.#needed = this.#answered ? this.#sent + 1 : 1;
    this.#rerouted();
    return () => {
      listener.gone = true;
      if (this.#listeners.delete(listener)) this.#rerouted();
    };
  }

  onGap(handler: (gap: GapMessage) => void): Off {
    return this.#gaps.add(handler);
  }

  onUpstream(handler: (upstream: Upstream) => void): Off {
    return this.#upstreams.add(handler);
  }

  onState(handler: (state: State) => void): Off {
    return this.#states.add(handler);
  }

  onMessage(handler: (message: RelayMessage) => void): Off {
    return this.#messages.add(handler);
  }

  onRenewal(handler: (token: string) => void): Off {
    return this.#renewals.add(handler);
  }

  setFilter(filter: Filter): void {
    this.#given = filter;
    this.#schedule();
  }

  renew(): void {
    this.#link.renew();
  }

  reconnect(): void {
    if (this.#phase === "closed") this.#phase = this.cursor ? "running" : "new";
    if (this.#phase === "running") this.#link.start();
    else this.#schedule();
  }

  close(): void {
    if (this.#phase !== "closed") this.#link.end("closed by this client");
  }

  #rerouted(): void {
    this.#routes.clear();
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (this.#phase === "new" && this.#wanted().length) void this.#begin();
      else this.#ask();
    });
  }

  async #begin(): Promise<void> {
    this.#phase = "loading";
    const kept = await loadCursor(this.#options.cursorStore);
    if (this.#phase !== "loading") return;
    this.cursor = kept;
    this.#phase = "running";
    this.#link.start();
  }

  #wanted(): string[] {
    return [...(this.#given.subjects ?? union([...this.#listeners].map((one) => one.pattern)))];
  }

  #filter(): SubscribeMessage {
    const { level, mode, interval_ms } = this.#given;
    // Without any handler left, what was asked for last goes on: no filter selects nothing.
    const subjects = this.#wanted();
    const filter = { subjects: subjects.length ? subjects : this.#asked.subjects, level, mode, interval_ms };
    return { type: "subscribe", ...(JSON.parse(JSON.stringify(filter)) as object) };
  }

  #address(): URL {
    const url = new URL(this.#url, globalThis.location?.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (url.pathname === "/") url.pathname = "/ws";
    this.#asked = this.#filter();
    // Subjects that are too long for an address: wider ones until the session begins, which is asked for these.
    const { subjects } = this.#asked;
    if (subjects && !fits(subjects)) this.#asked.subjects = union(subjects);
    const { type, ...filter } = this.#asked;
    for (const [name, value] of Object.entries(filter)) url.searchParams.set(name, String(value));
    if (this.cursor) url.searchParams.set("cursor", this.cursor);
    else if (this.#options.since) url.searchParams.set("since", this.#options.since);
    this.#past = this.cursor || this.#options.since ? new CatchUp() : null;
    this.#needed = this.#needed > this.#seen ? 1 : 0;
    this.#sent = 1;
    this.#answered = this.#seen = 0;
    return url;
  }

  /** Ask for what the handlers want, where that changed, or one has yet to see how things stand. */
  #ask(): void {
    const filter = this.#filter();
    const same = JSON.stringify(filter) === JSON.stringify(this.#asked);
    if (!this.#link.begun || (same && this.#needed <= this.#sent)) return;
    this.#asked = filter;
    this.#sent++;
    this.#link.send(filter);
  }

  #receive(message: RelayMessage): void {
    switch (message.type) {
      case "welcome":
        // It says so right away where it is not so.
        if (!this.upstream.connected) this.#upstream({ connected: true, since: null });
        break;
      case "subscribed":
        this.#subscribed(message);
        break;
      case "snapshot":
        if (!this.#handOn(message.events, true)) return;
        if (message.done) this.#seen = this.#answered;
        break;
      case "events":
        this.#past?.saw(
          message.events.map((item) => item.event.timestamp),
          performance.now(),
        );
        if (!this.#handOn(message.events, false)) return;
        this.#reach(message.cursor);
        break;
      case "gap":
        this.#gaps.emit(message);
        if (message.reason === "reset") this.#reach(message.to);
        break;
      case "heartbeat":
        this.#reach(message.cursor);
        break;
      case "upstream":
        this.#upstream({ connected: message.state === "connected", since: message.since });
    }
    this.#messages.emit(message);
  }

  #subscribed({ cursor, resumed }: SubscribedMessage): void {
    const first = !this.#link.begun;
    // Where our own place could not be honoured, the gap that tells is yet to come.
    if (!first || resumed || !this.cursor) this.#reach(cursor);
    if (first || !resumed) this.#answered++;
    // Another token brings a snapshot that was not asked for.
    this.#sent = Math.max(this.#sent, this.#answered);
    if (first && resumed && this.#needed) this.#needed = 2;
    this.#link.follow(this.#past);
    this.#ask();
  }

  #upstream(upstream: Upstream): void {
    this.upstream = upstream;
    this.#upstreams.emit(upstream);
  }

  #reach(cursor: Cursor): void {
    if (this.#phase !== "running" || cursor === this.cursor) return;
    this.cursor = cursor;
    saveCursor(this.#options.cursorStore, cursor);
  }

  /** Hand events on; false when a handler closed the feed, which ends it before the next event. */
  #handOn(items: readonly Item[], snapshot: boolean): boolean {
    for (const item of items) {
      const received: Received = Object.assign(item, { snapshot });
      for (const listener of this.#route(item.subject)) {
        if (!listener.gone) call(listener.handler, received);
        if (this.#phase !== "running") return false;
      }
    }
    return true;
  }

  #route(subject: string): readonly Listener[] {
    let route = this.#routes.get(subject);
    if (!route) {
      route = [...this.#listeners].filter(({ pattern }) => covers(pattern, subject));
      if (this.#routes.size >= MAX_ROUTES) this.#routes.clear();
      this.#routes.set(subject, route);
    }
    return route;
  }
}
