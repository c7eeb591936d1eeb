// @vitest-environment happy-dom

/** Cursor of a page across reloads. */

import { afterEach, expect, it, vi } from "vitest";

import { connect, sessionCursors } from "../src/index.js";
import { events, FakeSocket } from "./fake.js";

afterEach(() => vi.unstubAllGlobals());

async function visit(): Promise<void> {
  const cursorStore = sessionCursors("page");
  const client = connect("/ws", { WebSocket: FakeSocket, subjects: ["log.>"], cursorStore });
  await new Promise((resolve) => setTimeout(resolve, 0));
  FakeSocket.last.startSession("e-5");
  FakeSocket.last.receive(events("e-7-1795905117258956742", 6, 7));
  client.close();
}

it("a reloaded page resumes from the cursor in sessionStorage", async () => {
  await visit();
  expect(sessionStorage.length).toBe(1);
  expect(FakeSocket.last.query["cursor"]).toBeUndefined();
  await visit();
  expect(FakeSocket.last.query["cursor"]).toBe("e-7-1795905117258956742");
});

it("a page without storage connects without a cursor", async () => {
  const off = (): never => {
    throw new DOMException("denied", "SecurityError");
  };
  vi.stubGlobal("sessionStorage", { getItem: off, setItem: off });
  await visit();
  expect(FakeSocket.last.query["cursor"]).toBeUndefined();
});
