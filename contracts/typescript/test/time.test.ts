/** What the client does as time passes, on a clock and a socket of the test's own. */

import { describe, expect, it, vi } from "vitest";

import { connect, type State } from "../src/index.js";
import { device, follow, ownTime, pass, wait } from "./clock.js";
import { bye, events, FakeSocket, subscribed, welcome } from "./fake.js";

ownTime();

describe("waiting", () => {
  it("waits at random up to half a second first, then up to twice as long, up to 20 s", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const client = await follow();
    const waits: number[] = [];
    for (let n = 0; n < 8; n++) {
      FakeSocket.last.ends();
      waits.push(wait(client));
      await pass(waits[n] ?? 0);
    }
    expect(waits).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
    vi.mocked(Math.random).mockReturnValue(0);
    FakeSocket.last.ends();
    expect(wait(client)).toBe(0);
    vi.mocked(Math.random).mockRestore();
  });

  it("begins anew after a session that lasted", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const client = await follow();
    for (const ms of [500, 1_000]) {
      FakeSocket.last.ends();
      await pass(ms);
    }
    FakeSocket.last.begins();
    await pass(9_000);
    FakeSocket.last.ends();
    expect(wait(client)).toBe(2_000);
    await pass(2_000);
    FakeSocket.last.begins();
    await pass(11_000);
    FakeSocket.last.ends();
    expect(wait(client)).toBe(500);
    vi.mocked(Math.random).mockRestore();
  });

  it("waits as long as the relay says, and a little longer, whatever the reader does", async () => {
    const client = await follow();
    FakeSocket.last.begins();
    FakeSocket.last.says(bye(1001, "the relay shuts down", 30_000));
    FakeSocket.last.ends(1001);
    expect(client.state.reason).toBe("the relay shuts down");
    expect(wait(client)).toBeGreaterThanOrEqual(30_000);
    expect(wait(client)).toBeLessThan(30_500);
    device.dispatchEvent(new Event("online"));
    await pass(29_999);
    expect(FakeSocket.all.length).toBe(1);
    await pass(501);
    expect(FakeSocket.all.length).toBe(2);
  });

  it("comes back by its cursor, and hears nothing of a socket that it gave up", async () => {
    const client = await follow();
    const seqs: number[] = [];
    client.on("log.>", (event) => seqs.push(event.seq));
    const first = FakeSocket.last;
    first.begins("e-5");
    first.says(events("e-8", 6, 8), { type: "heartbeat", cursor: "e-9", time: "" });
    const heard = first.onmessage;
    first.ends();
    await pass(500);
    expect(FakeSocket.last.query).toEqual({ subjects: "log.>", cursor: "e-9" });
    first.onmessage = heard;
    first.says(events("e-10", 10));
    expect(seqs).toEqual([6, 8]);
  });
});

describe("the filter", () => {
  it("that is too long for an address is wider there, and exact once the session begins", async () => {
    const client = await follow();
    const subjects = Array.from({ length: 64 }, (_, n) => `gateway.status.ctp.${"x".repeat(60)}${n}`);
    FakeSocket.last.begins();
    client.setFilter({ subjects, level: "WARN" });
    await pass(0);
    const exact = { type: "subscribe", subjects, level: "WARN" };
    expect(FakeSocket.last.sent).toEqual([exact]);
    FakeSocket.last.says(subscribed("e-2"));
    for (const cursor of ["e-2", "e-3"]) {
      FakeSocket.last.ends();
      await pass(1_000);
      expect(FakeSocket.last.query).toEqual({ subjects: "gateway.status.ctp.>", level: "WARN", cursor });
      FakeSocket.last.begins("e-3", true);
      expect(FakeSocket.last.sent).toEqual([exact]);
      FakeSocket.last.says(subscribed("e-3"));
      await pass(0);
      expect(FakeSocket.last.sent.length).toBe(1);
    }
  });
});

describe("the place", () => {
  it("is the last one told, and the end of a gap only after a reset", async () => {
    const client = await follow();
    FakeSocket.last.begins("e-5");
    expect(client.cursor).toBe("e-5");
    const gap = { type: "gap", from: "e-5", to: "e-9", dropped: 2, by: { "log.info": 2 } };
    FakeSocket.last.says({ ...gap, reason: "rate" });
    expect(client.cursor).toBe("e-5");
    FakeSocket.last.says({ ...gap, to: "f-0", dropped: null, by: {}, reason: "reset" });
    expect(client.cursor).toBe("f-0");
  });

  it("stays until the gap is told where it could not be honoured", async () => {
    const client = await follow({ cursorStore: { load: () => "e-7", save: () => {} } });
    const gaps: unknown[] = [];
    client.onGap((gap) => gaps.push(gap));
    FakeSocket.last.says(welcome(), subscribed("f-3"));
    expect(client.cursor).toBe("e-7");
    FakeSocket.last.says({ type: "gap", from: "e-7", to: "f-3", dropped: null, by: {}, reason: "reset" });
    expect(client.cursor).toBe("f-3");
    expect(gaps.length).toBe(1);
  });

  it("stays before a frame in which a handler closed the feed", async () => {
    const saved: string[] = [];
    const client = await follow({ cursorStore: { load: () => null, save: (cursor) => saved.push(cursor) } });
    const seqs: number[] = [];
    client.on("log.>", ({ seq }) => {
      seqs.push(seq);
      client.close();
    });
    FakeSocket.last.begins("e-1");
    FakeSocket.last.says(events("e-3", 2, 3));
    expect(seqs).toEqual([2]);
    expect(saved).toEqual(["e-1"]);
  });

  it("is after a frame in which a handler connected anew, and no event comes twice", async () => {
    const client = await follow();
    const seqs: number[] = [];
    client.on("log.>", ({ seq }) => {
      seqs.push(seq);
      if (seq === 2) client.reconnect();
    });
    FakeSocket.last.begins("e-1");
    FakeSocket.last.says(events("e-3", 2, 3));
    await pass(0);
    expect(seqs).toEqual([2, 3]);
    expect(FakeSocket.all.length).toBe(2);
    expect(FakeSocket.last.query["cursor"]).toBe("e-3");
  });

  it("is none where the store has none, has rubbish, or fails", async () => {
    const failing = (): never => {
      throw new Error("off");
    };
    for (const load of [
      () => "not a cursor",
      () => undefined,
      () => Promise.reject(new Error("off")),
      failing,
    ]) {
      const client = await follow({ since: "10m", cursorStore: { load, save: failing } });
      expect(FakeSocket.last.query).toEqual({ subjects: "log.>", since: "10m" });
      FakeSocket.last.begins("e-1");
      expect(client.cursor).toBe("e-1");
    }
  });
});

describe("closing", () => {
  it("is for good until it is asked to connect again, and then goes on from its place", async () => {
    const client = await follow({ cursorStore: { load: () => "e-3", save: () => {} } });
    FakeSocket.last.begins("e-3", true);
    client.close();
    expect(client.state).toEqual({ phase: "closed", reason: "closed by this client" });
    await pass(3_600_000);
    expect(FakeSocket.all.length).toBe(1);
    client.reconnect();
    await pass(0);
    expect(FakeSocket.last.query["cursor"]).toBe("e-3");
    FakeSocket.last.begins("e-3", true);
    expect(client.state.phase).toBe("catching-up");
  });

  it("before the first connection opens none, and the place is still that of the store", async () => {
    const client = connect("ws://relay.example/ws", {
      WebSocket: FakeSocket,
      subjects: [">"],
      cursorStore: { load: () => "e-4", save: () => {} },
    });
    client.close();
    await pass(1_000);
    expect(FakeSocket.all.length).toBe(0);
    client.reconnect();
    await pass(0);
    expect(FakeSocket.last.query["cursor"]).toBe("e-4");
    client.close();
  });
});

describe("a snapshot that was cut off", () => {
  it("is asked for again after the return, which brings none by itself", async () => {
    const client = await follow();
    client.on("gateway.>", () => {});
    FakeSocket.last.says(welcome(), subscribed("e-5"), { type: "snapshot", events: [], done: false });
    FakeSocket.last.ends();
    await pass(500);
    FakeSocket.last.begins("e-5", true);
    expect(FakeSocket.last.sent).toEqual([{ type: "subscribe", subjects: ["log.>"] }]);
    FakeSocket.last.says(subscribed("e-5"), { type: "snapshot", events: [], done: true });
    FakeSocket.last.ends();
    await pass(1_000);
    FakeSocket.last.begins("e-5", true);
    expect(FakeSocket.last.sent).toEqual([]);
    expect(client.state.phase).toBe("catching-up");
  });
});

describe("a dead link", () => {
  it("is noticed ten seconds after a heartbeat that did not come", async () => {
    const client = await follow();
    FakeSocket.last.begins();
    await pass(20_000);
    FakeSocket.last.says({ type: "heartbeat", cursor: "e-2", time: "" });
    await pass(24_999);
    expect(client.state.phase).toBe("live");
    await pass(1);
    expect(client.state).toMatchObject({
      phase: "reconnecting",
      reason: expect.stringMatching(/heartbeat/) as string,
    });
    expect(FakeSocket.all[0]?.closed).toBe(true);
  });

  it("is one that never speaks, too", async () => {
    const client = await follow();
    await pass(10_000);
    expect(client.state).toMatchObject({ phase: "reconnecting", reason: "the relay does not respond" });
  });

  it("is noticed within five seconds when the reader or the network comes back", async () => {
    const client = await follow();
    FakeSocket.last.begins();
    device.visibilityState = "hidden";
    device.dispatchEvent(new Event("visibilitychange"));
    expect(FakeSocket.last.sent).toEqual([]);
    device.visibilityState = "visible";
    device.dispatchEvent(new Event("visibilitychange"));
    expect(FakeSocket.last.sent).toEqual([{ type: "ping" }]);
    await pass(4_000);
    FakeSocket.last.says({ type: "pong", id: null });
    await pass(2_000);
    expect(client.state.phase).toBe("live");
    device.dispatchEvent(new Event("online"));
    await pass(5_000);
    expect(client.state.phase).toBe("reconnecting");
  });
});

describe("the device", () => {
  it("is waited for while it is offline, and its return is used at once", async () => {
    const client = await follow();
    FakeSocket.last.begins();
    vi.stubGlobal("navigator", { onLine: false });
    device.dispatchEvent(new Event("offline"));
    expect(client.state.phase).toBe("live");
    FakeSocket.last.ends();
    const offline: State = { phase: "reconnecting", reason: "this device is offline", retryAt: null };
    expect(client.state).toEqual(offline);
    device.visibilityState = "visible";
    device.dispatchEvent(new Event("visibilitychange"));
    await pass(3_600_000);
    expect(FakeSocket.all.length).toBe(1);
    vi.stubGlobal("navigator", { onLine: true });
    device.dispatchEvent(new Event("online"));
    await pass(0);
    expect(FakeSocket.all.length).toBe(2);
  });

  it("stops a wait when it goes offline, and cuts one short when the reader comes back", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const client = await follow();
    FakeSocket.last.ends();
    vi.stubGlobal("navigator", { onLine: false });
    device.dispatchEvent(new Event("offline"));
    expect(client.state).toMatchObject({ reason: "this device is offline" });
    await pass(10_000);
    expect(FakeSocket.all.length).toBe(1);
    vi.stubGlobal("navigator", { onLine: true });
    device.dispatchEvent(new Event("online"));
    await pass(0);
    FakeSocket.last.ends();
    device.visibilityState = "visible";
    device.dispatchEvent(new Event("visibilitychange"));
    await pass(0);
    expect(FakeSocket.all.length).toBe(3);
    vi.mocked(Math.random).mockRestore();
  });

  it("may have a clock that is an hour off, and that jumps", async () => {
    const client = await follow({ since: "10m" });
    FakeSocket.last.begins("e-1", true);
    vi.setSystemTime(Date.now() + 3_600_000);
    FakeSocket.last.says(events("e-2", 2));
    await pass(20_000);
    vi.setSystemTime(Date.now() - 7_200_000);
    FakeSocket.last.says({ type: "heartbeat", cursor: "e-2", time: "2020-01-01T00:00:00.000Z" });
    await pass(20_000);
    expect(client.state.phase).toBe("live");
    FakeSocket.last.says({ type: "token_expiring", expires_at: "2020-01-01T00:00:00.000Z" });
    await pass(0);
    expect(FakeSocket.all.length).toBe(1);
  });
});

describe("catching up", () => {
  it("ends when the events' times pass no faster than time itself", async () => {
    const client = await follow({ since: "1h" });
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
    FakeSocket.last.begins("e-1");
    for (let n = 0; n < 10; n++) {
      FakeSocket.last.says(at(n * 60_000));
      await pass(200);
      expect(client.state.phase).toBe("catching-up");
    }
    for (let n = 0; n < 5; n++) {
      FakeSocket.last.says(at(540_000 + n * 200));
      await pass(200);
    }
    expect(client.state.phase).toBe("live");
  });
});
