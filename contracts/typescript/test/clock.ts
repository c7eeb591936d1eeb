/** A client on a clock, a device and a socket of the test's own. */

import { afterEach, beforeEach, expect, vi } from "vitest";

import { connect, type Client, type Options } from "../src/index.js";
import { FakeSocket } from "./fake.js";

const open: Client[] = [];

/** Follow a relay that is a `FakeSocket`. */
export async function follow(options: Options = {}): Promise<Client> {
  const client = connect("ws://relay.example/ws", { WebSocket: FakeSocket, subjects: ["log.>"], ...options });
  open.push(client);
  await vi.advanceTimersByTimeAsync(0);
  return client;
}

/** Let time pass. */
export const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

/** When the next attempt starts, from now. */
export function wait(client: Client): number {
  if (client.state.phase !== "reconnecting") throw new Error(`it is ${client.state.phase}`);
  return (client.state.retryAt ?? NaN) - Date.now();
}

/** What tells the client of the network and the reader. */
export const device = new EventTarget() as EventTarget & { visibilityState?: string };

/** Give each test of a file a clock and a device of its own; nothing may be left of it. */
export function ownTime(): void {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "Date"] });
    vi.stubGlobal("addEventListener", device.addEventListener.bind(device));
    vi.stubGlobal("document", device);
    FakeSocket.all = [];
  });
  afterEach(() => {
    for (const client of open.splice(0)) client.close();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });
}
