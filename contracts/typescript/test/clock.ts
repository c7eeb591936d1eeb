/** Client tests with a fake clock, a fake device and fake sockets. */

import { afterEach, beforeEach, expect, vi } from "vitest";

import { connect, type Client, type Options } from "../src/index.js";
import { FakeSocket } from "./fake.js";

const open: Client[] = [];

/** Connect a client through `FakeSocket`; it is closed after the test. */
export async function connectClient(options: Options = {}): Promise<Client> {
  const client = connect("ws://relay.example/ws", { WebSocket: FakeSocket, subjects: ["log.>"], ...options });
  open.push(client);
  await vi.advanceTimersByTimeAsync(0);
  return client;
}

/** Advance the fake clock. */
export const advance = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

/** Return the delay until the next attempt in milliseconds. */
export function wait(client: Client): number {
  if (client.state.phase !== "reconnecting") throw new Error(`the client is ${client.state.phase}, not reconnecting`);
  return (client.state.retryAt ?? NaN) - Date.now();
}

/** Source of network and visibility events. */
export const device = new EventTarget() as EventTarget & { visibilityState?: string };

/** Set up a fake clock and device for each test of a file, and check that no timer is left. */
export function useFakeTime(): void {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "Date"] });
    vi.stubGlobal("addEventListener", device.addEventListener.bind(device));
    vi.stubGlobal("document", device);
    // The relay is reachable only through `FakeSocket`.
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("fetch failed")));
    FakeSocket.all = [];
  });
  afterEach(() => {
    for (const client of open.splice(0)) client.close();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });
}
