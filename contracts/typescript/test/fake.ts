/** WebSocket without a network: the test plays the relay. */

import type { ByeMessage, ClientMessage, WebSocketLike } from "../src/index.js";

/** Fake WebSocket that records what the client sends. */
export class FakeSocket implements WebSocketLike {
  /** All sockets opened in this test, in order. */
  static all: FakeSocket[] = [];

  readyState = 0;
  onmessage: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  readonly sent: ClientMessage[] = [];
  closed = false;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  send(data: string): void {
    this.sent.push(JSON.parse(data) as ClientMessage);
  }

  close(): void {
    this.closed = true;
    this.readyState = 3;
  }

  /** Receive messages from the relay; a string is received unchanged. */
  receive(...messages: (object | string)[]): void {
    this.readyState = 1;
    for (const message of messages) {
      const data = typeof message === "string" ? message : JSON.stringify(message);
      (this.onmessage as ((event: object) => void) | null)?.({ data });
    }
  }

  /** Close the connection from the relay's side. */
  disconnect(code = 1006, reason = ""): void {
    this.readyState = 3;
    (this.onclose as ((event: object) => void) | null)?.({ code, reason });
  }

  /** Start a session: welcome, subscribed and, unless it resumes, an empty snapshot. */
  startSession(cursor = "e-1", resumed = false): void {
    this.receive(welcome(), subscribed(cursor, resumed));
    if (!resumed) this.receive({ type: "snapshot", events: [], done: true });
  }

  /** Query parameters of the URL. */
  get query(): Record<string, string> {
    return Object.fromEntries(new URL(this.url).searchParams);
  }
}

export function welcome(more: object = {}): object {
  return {
    type: "welcome",
    protocol: "tickertape.v1",
    relay: "fake",
    session: "s",
    heartbeat_ms: 15_000,
    limits: { rate: 0, max_message_bytes: 1, max_subjects: 64 },
    grant: { subjects: [">"], deny: [], level: "DEBUG", rate: 0 },
    expires_at: null,
    ...more,
  };
}

export function subscribed(cursor: string, resumed = false): object {
  return {
    type: "subscribed",
    subjects: [">"],
    level: "DEBUG",
    mode: "live",
    interval_ms: 1000,
    cursor,
    resumed,
  };
}

export function events(cursor: string, ...seqs: number[]): object {
  return { type: "events", cursor, events: seqs.map((seq) => item(seq)) };
}

export function item(seq: number, subject = "log.info.x", more: object = {}): object {
  const event = {
    event_type: "system_log",
    timestamp: "2025-06-24T10:30:45.123Z",
    level: "INFO",
    source: "x",
  };
  return { subject, seq, event: { ...event, message: `line ${seq}`, ...more } };
}

export function bye(code: number, reason: string, retry_after_ms: number | null = null): ByeMessage {
  return { type: "bye", code, reason, retry_after_ms };
}
