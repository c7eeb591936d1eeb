/** Timing of the client, with a fake clock and fake sockets. */

import { describe, expect, it, vi } from "vitest";

import { connect, type State } from "../src/index.js";
import { device, connectClient, useFakeTime, advance, wait } from "./clock.js";
import { bye, events, FakeSocket, subscribed, welcome } from "./fake.js";

useFakeTime();

describe("the backoff", () => {
  it("is random, up to half a second at first, doubling to at most 20 s", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const client = await connectClient();
    const waits: number[] = [];
    for (let n = 0; n < 8; n++) {
      FakeSocket.last.disconnect();
      waits.push(wait(client));
      await advance(waits[n] ?? 0);
    }
    expect(waits).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
    vi.mocked(Math.random).mockReturnValue(0);
    FakeSocket.last.disconnect();
    expect(wait(client)).toBe(0);
    vi.mocked(Math.random).mockRestore();
  });

  it("starts over after a stable session", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const client = await connectClient();
    for (const ms of [500, 1_000]) {
      FakeSocket.last.disconnect();
      await advance(ms);
    }
    FakeSocket.last.startSession();
    await advance(9_000);
    FakeSocket.last.disconnect();
    expect(wait(client)).toBe(2_000);
    await advance(2_000);
    FakeSocket.last.startSession();
    await advance(11_000);
    FakeSocket.last.disconnect();
    expect(wait(client)).toBe(500);
    vi.mocked(Math.random).mockRestore();
  });

  it("is at least the delay that the relay set, even if the device wakes up", async () => {
    const client = await connectClient();
    FakeSocket.last.startSession();
    FakeSocket.last.receive(bye(1001, "the relay shuts down", 30_000));
    FakeSocket.last.disconnect(1001);
    expect(client.state.reason).toBe("the relay shuts down");
    expect(wait(client)).toBeGreaterThanOrEqual(30_000);
    expect(wait(client)).toBeLessThan(30_500);
    device.dispatchEvent(new Event("online"));
    await advance(29_999);
    expect(FakeSocket.all.length).toBe(1);
    await advance(501);
    expect(FakeSocket.all.length).toBe(2);
  });

  it("is followed by a resume from the cursor, and the abandoned socket is ignored", async () => {
    const client = await connectClient();
    const seqs: number[] = [];
    client.on("log.>", (event) => seqs.push(event.seq));
    const first = FakeSocket.last;
    first.startSession("e-5");
    first.receive(events("e-8", 6, 8), { type: "heartbeat", cursor: "e-9", time: "" });
    const { onmessage } = first;
    first.disconnect();
    await advance(500);
    expect(FakeSocket.last.query).toEqual({ subjects: "log.>", cursor: "e-9" });
    first.onmessage = onmessage;
    first.receive(events("e-10", 10));
    expect(seqs).toEqual([6, 8]);
  });
});

describe("the filter", () => {
  it("is widened in the URL if it is too long, and sent exactly once the session starts", async () => {
    const client = await connectClient();
    const subjects = Array.from({ length: 64 }, (_, n) => `gateway.status.ctp.${"x".repeat(60)}${n}`);
    FakeSocket.last.startSession();
    client.setFilter({ subjects, level: "WARN" });
    await advance(0);
    const exact = { type: "subscribe", subjects, level: "WARN" };
    expect(FakeSocket.last.sent).toEqual([exact]);
    FakeSocket.last.receive(subscribed("e-2"));
    for (const cursor of ["e-2", "e-3"]) {
      FakeSocket.last.disconnect();
      await advance(1_000);
      expect(FakeSocket.last.query).toEqual({ subjects: "gateway.status.ctp.>", level: "WARN", cursor });
      FakeSocket.last.startSession("e-3", true);
      expect(FakeSocket.last.sent).toEqual([exact]);
      FakeSocket.last.receive(subscribed("e-3"));
      await advance(0);
      expect(FakeSocket.last.sent.length).toBe(1);
    }
  });
});

describe("the cursor", () => {
  it("is the last one received; the end of a gap only after a reset", async () => {
    const client = await connectClient();
    FakeSocket.last.startSession("e-5");
    expect(client.cursor).toBe("e-5");
    const gap = { type: "gap", from: "e-5", to: "e-9", dropped: 2, by: { "log.info": 2 } };
    FakeSocket.last.receive({ ...gap, reason: "rate" });
    expect(client.cursor).toBe("e-5");
    FakeSocket.last.receive({ ...gap, to: "f-0", dropped: null, by: {}, reason: "reset" });
    expect(client.cursor).toBe("f-0");
  });

  it("is kept until the gap is reported if the relay could not resume from it", async () => {
    const client = await connectClient({ cursorStore: { load: () => "e-7", save: () => {} } });
    const gaps: unknown[] = [];
    client.onGap((gap) => gaps.push(gap));
    FakeSocket.last.receive(welcome(), subscribed("f-3"));
    expect(client.cursor).toBe("e-7");
    FakeSocket.last.receive({ type: "gap", from: "e-7", to: "f-3", dropped: null, by: {}, reason: "reset" });
    expect(client.cursor).toBe("f-3");
    expect(gaps.length).toBe(1);
  });

  it("does not advance past a message during which a handler closed the feed", async () => {
    const saved: string[] = [];
    const client = await connectClient({ cursorStore: { load: () => null, save: (cursor) => saved.push(cursor) } });
    const seqs: number[] = [];
    client.on("log.>", ({ seq }) => {
      seqs.push(seq);
      client.close();
    });
    FakeSocket.last.startSession("e-1");
    FakeSocket.last.receive(events("e-3", 2, 3));
    expect(seqs).toEqual([2]);
    expect(saved).toEqual(["e-1"]);
  });

  it("advances past a message during which a handler reconnected, and no event is repeated", async () => {
    const client = await connectClient();
    const seqs: number[] = [];
    client.on("log.>", ({ seq }) => {
      seqs.push(seq);
      if (seq === 2) client.reconnect();
    });
    FakeSocket.last.startSession("e-1");
    FakeSocket.last.receive(events("e-3", 2, 3));
    await advance(0);
    expect(seqs).toEqual([2, 3]);
    expect(FakeSocket.all.length).toBe(2);
    expect(FakeSocket.last.query["cursor"]).toBe("e-3");
  });

  it("is null if the store is empty, invalid or fails", async () => {
    const failing = (): never => {
      throw new Error("off");
    };
    for (const load of [
      () => "not a cursor",
      () => undefined,
      () => Promise.reject(new Error("off")),
      failing,
    ]) {
      const client = await connectClient({ since: "10m", cursorStore: { load, save: failing } });
      expect(FakeSocket.last.query).toEqual({ subjects: "log.>", since: "10m" });
      FakeSocket.last.startSession("e-1");
      expect(client.cursor).toBe("e-1");
    }
  });
});

describe("closing", () => {
  it("is final until reconnect(), which resumes from the cursor", async () => {
    const client = await connectClient({ cursorStore: { load: () => "e-3", save: () => {} } });
    FakeSocket.last.startSession("e-3", true);
    client.close();
    expect(client.state).toEqual({ phase: "closed", reason: "closed by this client" });
    await advance(3_600_000);
    expect(FakeSocket.all.length).toBe(1);
    client.reconnect();
    await advance(0);
    expect(FakeSocket.last.query["cursor"]).toBe("e-3");
    FakeSocket.last.startSession("e-3", true);
    expect(client.state.phase).toBe("catching-up");
  });

  it("before the first connection opens none, and reconnect() uses the stored cursor", async () => {
    const client = connect("ws://relay.example/ws", {
      WebSocket: FakeSocket,
      subjects: [">"],
      cursorStore: { load: () => "e-4", save: () => {} },
    });
    client.close();
    await advance(1_000);
    expect(FakeSocket.all.length).toBe(0);
    client.reconnect();
    await advance(0);
    expect(FakeSocket.last.query["cursor"]).toBe("e-4");
    client.close();
  });
});

describe("an interrupted snapshot", () => {
  it("is requested again after a resume", async () => {
    const client = await connectClient();
    client.on("gateway.>", () => {});
    FakeSocket.last.receive(welcome(), subscribed("e-5"), { type: "snapshot", events: [], done: false });
    FakeSocket.last.disconnect();
    await advance(500);
    FakeSocket.last.startSession("e-5", true);
    expect(FakeSocket.last.sent).toEqual([{ type: "subscribe", subjects: ["log.>"] }]);
    FakeSocket.last.receive(subscribed("e-5"), { type: "snapshot", events: [], done: true });
    FakeSocket.last.disconnect();
    await advance(1_000);
    FakeSocket.last.startSession("e-5", true);
    expect(FakeSocket.last.sent).toEqual([]);
    expect(client.state.phase).toBe("catching-up");
  });
});

describe("a dead link", () => {
  it("is detected ten seconds after a missed heartbeat", async () => {
    const client = await connectClient();
    FakeSocket.last.startSession();
    await advance(20_000);
    FakeSocket.last.receive({ type: "heartbeat", cursor: "e-2", time: "" });
    await advance(24_999);
    expect(client.state.phase).toBe("live");
    await advance(1);
    expect(client.state).toMatchObject({
      phase: "reconnecting",
      reason: expect.stringMatching(/heartbeat/) as string,
    });
    expect(FakeSocket.all[0]?.closed).toBe(true);
  });

  it("includes a link on which no message ever arrives", async () => {
    const client = await connectClient();
    await advance(10_000);
    expect(client.state).toMatchObject({ phase: "reconnecting", reason: "the relay does not respond" });
  });

  it("is detected within five seconds after the page or the network wakes up", async () => {
    const client = await connectClient();
    FakeSocket.last.startSession();
    device.visibilityState = "hidden";
    device.dispatchEvent(new Event("visibilitychange"));
    expect(FakeSocket.last.sent).toEqual([]);
    device.visibilityState = "visible";
    device.dispatchEvent(new Event("visibilitychange"));
    expect(FakeSocket.last.sent).toEqual([{ type: "ping" }]);
    await advance(4_000);
    FakeSocket.last.receive({ type: "pong", id: null });
    await advance(2_000);
    expect(client.state.phase).toBe("live");
    device.dispatchEvent(new Event("online"));
    await advance(5_000);
    expect(client.state.phase).toBe("reconnecting");
  });
});

describe("the device", () => {
  it("delays the reconnect while it is offline, and triggers it when it is online", async () => {
    const client = await connectClient();
    FakeSocket.last.startSession();
    vi.stubGlobal("navigator", { onLine: false });
    device.dispatchEvent(new Event("offline"));
    expect(client.state.phase).toBe("live");
    FakeSocket.last.disconnect();
    const offline: State = { phase: "reconnecting", reason: "this device is offline", retryAt: null };
    expect(client.state).toEqual(offline);
    device.visibilityState = "visible";
    device.dispatchEvent(new Event("visibilitychange"));
    await advance(3_600_000);
    expect(FakeSocket.all.length).toBe(1);
    vi.stubGlobal("navigator", { onLine: true });
    device.dispatchEvent(new Event("online"));
    await advance(0);
    expect(FakeSocket.all.length).toBe(2);
  });

  it("stops the backoff when it goes offline, and ends it when the page becomes visible", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const client = await connectClient();
    FakeSocket.last.disconnect();
    vi.stubGlobal("navigator", { onLine: false });
    device.dispatchEvent(new Event("offline"));
    expect(client.state).toMatchObject({ reason: "this device is offline" });
    await advance(10_000);
    expect(FakeSocket.all.length).toBe(1);
    vi.stubGlobal("navigator", { onLine: true });
    device.dispatchEvent(new Event("online"));
    await advance(0);
    FakeSocket.last.disconnect();
    device.visibilityState = "visible";
    device.dispatchEvent(new Event("visibilitychange"));
    await advance(0);
    expect(FakeSocket.all.length).toBe(3);
    vi.mocked(Math.random).mockRestore();
  });

  it("can have a clock that is wrong and jumps", async () => {
    const client = await connectClient({ since: "10m" });
    FakeSocket.last.startSession("e-1", true);
    vi.setSystemTime(Date.now() + 3_600_000);
    FakeSocket.last.receive(events("e-2", 2));
    await advance(20_000);
    vi.setSystemTime(Date.now() - 7_200_000);
    FakeSocket.last.receive({ type: "heartbeat", cursor: "e-2", time: "2020-01-01T00:00:00.000Z" });
    await advance(20_000);
    expect(client.state.phase).toBe("live");
    FakeSocket.last.receive({ type: "token_expiring", expires_at: "2020-01-01T00:00:00.000Z" });
    await advance(0);
    expect(FakeSocket.all.length).toBe(1);
  });
});

describe("catching up", () => {
  it("ends when the timestamps of the events advance no faster than the clock", async () => {
    const client = await connectClient({ since: "1h" });
    const at = (ms: number): object => ({
      type: "events",
      cursor: "e-2",
      events: [
        {
          subject: "log.info.x",
          seq: 2,
          event: { event_type: "system_log", timestamp: new Date(ms).toISOString() },
        },
      ],
    });
    FakeSocket.last.startSession("e-1");
    for (let n = 0; n < 10; n++) {
      FakeSocket.last.receive(at(n * 60_000));
      await advance(200);
      expect(client.state.phase).toBe("catching-up");
    }
    for (let n = 0; n < 5; n++) {
      FakeSocket.last.receive(at(540_000 + n * 200));
      await advance(200);
    }
    expect(client.state.phase).toBe("live");
  });
});
