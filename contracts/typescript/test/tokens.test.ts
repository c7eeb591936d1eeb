/** When the client calls token(), which token it uses, and when it gives up. */

import { describe, expect, it, vi } from "vitest";

import { connectClient, useFakeTime, advance, wait } from "./clock.js";
import { bye, FakeSocket, subscribed } from "./fake.js";

const JWT = (name: string): string => `h.${name}.s`;

useFakeTime();

describe("a token", () => {
  it("is sent as a subprotocol and never in the URL", async () => {
    await connectClient({ token: () => Promise.resolve(JWT("one")) });
    expect(FakeSocket.last.protocols).toEqual(["tickertape.v1", "bearer.h.one.s"]);
    expect(FakeSocket.last.url).not.toContain("h.one.s");
  });

  it("is requested again after a rejection, with a backoff", async () => {
    let calls = 0;
    const client = await connectClient({ token: () => Promise.resolve(JWT(String(calls++))) });
    FakeSocket.last.receive(bye(4401, "expired"));
    FakeSocket.last.disconnect(4401);
    expect(client.state).toMatchObject({ phase: "reconnecting", reason: "expired" });
    expect(wait(client)).toBeLessThanOrEqual(500);
    await advance(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.1.s");
    FakeSocket.last.startSession();
    expect(client.state.phase).toBe("live");
  });

  it("can be rejected five times at most", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    let calls = 0;
    const client = await connectClient({ token: () => Promise.resolve(JWT(String(calls++))) });
    for (let n = 0; n < 5; n++) {
      FakeSocket.last.disconnect(4401, "wrong key");
      await advance(0);
    }
    vi.mocked(Math.random).mockRestore();
    expect(client.state).toEqual({ phase: "closed", reason: "the relay rejected every token: wrong key" });
    expect(calls).toBe(5);
  });

  it("that is accepted resets the count of rejections", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    let calls = 0;
    const client = await connectClient({ token: () => Promise.resolve(JWT(String(calls++))) });
    for (const round of [1, 2, 3]) {
      for (let n = 0; n < 4; n++) {
        FakeSocket.last.disconnect(4401, `in round ${round}`);
        await advance(0);
      }
      FakeSocket.last.startSession("e-1");
      expect(client.state.phase).toMatch(/live|catching-up/);
    }
    vi.mocked(Math.random).mockRestore();
  });

  it("that cannot be obtained is requested five times, and the reason is reported", async () => {
    let calls = 0;
    const token = (): Promise<string> => {
      calls++;
      return Promise.reject(new Error("no one is logged in"));
    };
    const client = await connectClient({ token });
    expect(client.state).toMatchObject({
      phase: "reconnecting",
      reason: "token() failed: no one is logged in",
    });
    await advance(60_000);
    expect(client.state).toEqual({ phase: "closed", reason: "token() failed: no one is logged in" });
    expect(calls).toBe(5);
    client.reconnect();
    await advance(60_000);
    expect(calls).toBe(10);
  });

  it("that is not a JWT closes the client, and is not part of the reason", async () => {
    const client = await connectClient({ token: () => "secret words" });
    expect(client.state).toEqual({
      phase: "closed",
      reason: "token() did not return a JWT: expected three parts separated by dots",
    });
  });

  it("that expires soon is requested until there is a new one", async () => {
    let now = JWT("old");
    const client = await connectClient({ token: () => now });
    FakeSocket.last.startSession();
    FakeSocket.last.receive({ type: "token_expiring", expires_at: "" });
    await advance(5_000);
    expect(FakeSocket.last.sent).toEqual([]);
    now = JWT("new");
    await advance(10_000);
    expect(FakeSocket.last.sent).toEqual([{ type: "auth", token: JWT("new") }]);
    // The relay cannot verify it now: the client sends it again later.
    FakeSocket.last.receive({ type: "error", code: "unavailable", message: "keys", retry: true, ref: "auth" });
    await advance(5_000);
    expect(FakeSocket.last.sent.length).toBe(2);
    FakeSocket.last.receive(subscribed("e-1", true));
    FakeSocket.last.disconnect();
    await advance(1_000);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.new.s");
    expect(client.state.phase).toBe("reconnecting");
  });

  it("stays in use if the next one is rejected; if it expired itself, the next one is used", async () => {
    const given = [JWT("a"), JWT("b"), JWT("c")];
    await connectClient({ token: () => given.shift() ?? JWT("d") });
    FakeSocket.last.startSession();
    FakeSocket.last.receive({ type: "token_expiring", expires_at: "" });
    await advance(0);
    FakeSocket.last.receive({ type: "error", code: "unauthorized", message: "", retry: true, ref: "auth" });
    FakeSocket.last.disconnect(4401);
    await advance(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.a.s");
    FakeSocket.last.startSession();
    FakeSocket.last.receive({ type: "token_expiring", expires_at: "" });
    await advance(0);
    FakeSocket.last.receive({ type: "error", code: "unauthorized", message: "", retry: true, ref: null });
    FakeSocket.last.disconnect(4401);
    await advance(1_000);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.c.s");
  });

  it("that is null lets the relay decide whether it requires one", async () => {
    let given: string | null = null;
    const client = await connectClient({ token: () => given });
    expect(FakeSocket.last.protocols).toEqual(["tickertape.v1"]);
    FakeSocket.last.startSession();
    FakeSocket.last.disconnect();
    await advance(500);
    FakeSocket.last.receive(bye(4401, "a token is needed"));
    FakeSocket.last.disconnect(4401);
    expect(client.state).toMatchObject({ phase: "reconnecting", reason: "a token is needed" });
    given = JWT("late");
    await advance(1_000);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.late.s");
  });

  it("is renewed on renew()", async () => {
    let now: string | null = JWT("old");
    const client = await connectClient({ token: () => now });
    client.renew();
    await advance(0);
    expect(FakeSocket.last.sent).toEqual([]);
    FakeSocket.last.startSession();
    now = JWT("new");
    client.renew();
    await advance(0);
    expect(FakeSocket.last.sent).toEqual([{ type: "auth", token: JWT("new") }]);
  });

  it("is not accepted by the answer to a filter; its rejection does not affect the current one", async () => {
    let now = JWT("good");
    const client = await connectClient({ token: () => now });
    const accepted: string[] = [];
    client.onRenewal((token) => accepted.push(token));
    FakeSocket.last.startSession();
    client.setFilter({ subjects: ["gateway.>"] });
    await advance(0);
    now = JWT("bad");
    client.renew();
    await advance(0);
    expect(FakeSocket.last.sent.map(({ type }) => type)).toEqual(["subscribe", "auth"]);
    FakeSocket.last.receive(subscribed("e-1"));
    FakeSocket.last.receive({ type: "error", code: "unauthorized", message: "", retry: true, ref: "auth" });
    FakeSocket.last.disconnect(4401);
    await advance(500);
    expect(client.state.phase).toBe("reconnecting");
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.good.s");
    expect(accepted).toEqual([]);
  });

  it("is accepted in the order of sending, even if the following one is rejected", async () => {
    let now = JWT("a");
    const client = await connectClient({ token: () => now });
    const accepted: string[] = [];
    client.onRenewal((token) => accepted.push(token));
    FakeSocket.last.startSession();
    for (const name of ["b", "c"]) {
      now = JWT(name);
      client.renew();
      await advance(0);
    }
    client.setFilter({ subjects: ["gateway.>"] });
    await advance(0);
    FakeSocket.last.receive(subscribed("e-1", true));
    expect(accepted).toEqual([JWT("b")]);
    FakeSocket.last.receive({ type: "error", code: "unauthorized", message: "", retry: true, ref: "auth" });
    FakeSocket.last.disconnect(4401);
    await advance(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.b.s");
  });

  it("that the relay cannot verify is not accepted by the answer to a filter", async () => {
    let now = JWT("a");
    const client = await connectClient({ token: () => now });
    FakeSocket.last.startSession();
    now = JWT("b");
    client.renew();
    await advance(0);
    client.setFilter({ subjects: ["gateway.>"] });
    await advance(0);
    FakeSocket.last.receive({ type: "error", code: "unavailable", message: "", retry: true, ref: "auth" });
    FakeSocket.last.receive(subscribed("e-1"));
    FakeSocket.last.disconnect();
    await advance(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.a.s");
  });

  it("is not requested any more once the relay accepted the next one", async () => {
    let now = JWT("old");
    let calls = 0;
    let answer: ((token: string) => void) | null = null;
    let slow = false;
    const client = await connectClient({
      token: () => {
        calls++;
        return slow ? new Promise((resolve) => (answer = resolve)) : now;
      },
    });
    FakeSocket.last.startSession();
    FakeSocket.last.receive({ type: "token_expiring", expires_at: "" });
    await advance(0);
    now = JWT("new");
    client.renew();
    await advance(0);
    // Another request is in progress before the relay's answer arrives.
    slow = true;
    FakeSocket.last.receive({ type: "token_expiring", expires_at: "" });
    FakeSocket.last.receive(subscribed("e-1", true));
    (answer as unknown as (token: string) => void)(now);
    calls = 0;
    for (let n = 0; n < 12; n++) {
      await advance(5_000);
      FakeSocket.last.receive({ type: "heartbeat", cursor: "e-1", time: "" });
    }
    expect(calls).toBe(0);
    expect(client.state.phase).toBe("live");
  });
});
