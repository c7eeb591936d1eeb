/** Choice of the transport, with a fake clock: when a stream replaces the WebSocket, and for how long. */

import { beforeEach, describe, expect, it, vi } from "vitest";

import type { Client } from "../src/index.js";
import { advance, connectClient, useFakeTime, wait } from "./clock.js";
import { events, FakeSocket, subscribed, welcome } from "./fake.js";

useFakeTime();

const SNAPSHOT = { type: "snapshot", events: [], done: true };

/** Status of the relay's answers to plain HTTP; 0 if it does not answer. */
let status = 200;
let streams: ReadableStreamDefaultController<Uint8Array>[] = [];

function answer(_url: string, { method }: RequestInit): Promise<object> {
  if (status === 0) return Promise.reject(new TypeError("fetch failed"));
  const body = new ReadableStream<Uint8Array>({ start: (controller) => void (method || streams.push(controller)) });
  return Promise.resolve({ status, body, headers: new Headers(), json: () => Promise.resolve({}) });
}

beforeEach(() => {
  status = 200;
  streams = [];
  vi.stubGlobal("fetch", answer);
});

/** Send messages on the last stream. */
async function receive(...messages: object[]): Promise<void> {
  const text = messages.map((message) => `data: ${JSON.stringify(message)}\n\n`).join("");
  streams.at(-1)?.enqueue(new TextEncoder().encode(text));
  await settle();
}

/** Let the reader of a stream and the requests take their turns, which are no timers. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  await advance(0);
}

/** Fail WebSockets before their first message, each time until the next attempt has begun. */
async function fail(client: Client, number: number): Promise<void> {
  for (let count = 0; count < number; count++) {
    FakeSocket.last.disconnect();
    await advance(wait(client));
    await settle();
  }
}

describe("a stream", () => {
  it("is used after two failures while plain HTTP works, and given up for a WebSocket after five minutes", async () => {
    const client = await connectClient();
    await fail(client, 2);
    expect([FakeSocket.all.length, streams.length]).toEqual([2, 1]);
    await receive(welcome(), subscribed("e-1"), SNAPSHOT, events("e-2", 2));
    expect([client.state.phase, client.transport, client.cursor]).toEqual(["live", "stream", "e-2"]);
    streams[0]?.close();
    await settle();
    await advance(wait(client));
    await settle();
    expect([FakeSocket.all.length, streams.length]).toEqual([2, 2]);
    await receive(welcome(), subscribed("e-2", true));
    for (let seconds = 0; seconds < 300; seconds += 15) {
      await advance(15_000);
      await receive({ type: "heartbeat", cursor: "e-2" });
    }
    streams[1]?.close();
    await settle();
    await advance(wait(client));
    await settle();
    expect([FakeSocket.all.length, streams.length]).toEqual([3, 2]);
    FakeSocket.last.startSession("e-2", true);
    expect(client.transport).toBe("websocket");
  });

  it("is replaced when its heartbeats stop", async () => {
    const client = await connectClient();
    await fail(client, 2);
    await receive(welcome(), subscribed("e-1"));
    await advance(25_000);
    await advance(wait(client));
    await settle();
    expect(streams.length).toBe(2);
    expect(client.transport).toBe("stream");
  });

  for (const rejection of [0, 403, 404, 429, 500, 503]) {
    it(`is not used while plain HTTP is answered with ${rejection || "nothing"}`, async () => {
      status = rejection;
      const client = await connectClient();
      await fail(client, 5);
      expect([FakeSocket.all.length, streams.length, client.transport]).toEqual([6, 0, "websocket"]);
    });
  }

  it("is not used if a failure comes after a session", async () => {
    const client = await connectClient();
    for (let count = 0; count < 4; count++) {
      FakeSocket.last.startSession();
      await fail(client, 1);
    }
    expect([streams.length, client.transport]).toEqual([0, "websocket"]);
  });
});
