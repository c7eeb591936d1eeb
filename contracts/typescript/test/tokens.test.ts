/** When the client asks for a token, which one it uses, and when it gives up. */

import { describe, expect, it, vi } from "vitest";

import { follow, ownTime, pass, wait } from "./clock.js";
import { bye, FakeSocket, subscribed } from "./fake.js";

const JWT = (name: string): string => `h.${name}.s`;

ownTime();

describe("a token", () => {
  it("goes with the first request, beside the protocol, and never into the address", async () => {
    await follow({ token: () => Promise.resolve(JWT("one")) });
    expect(FakeSocket.last.protocols).toEqual(["tickertape.v1", "bearer.h.one.s"]);
    expect(FakeSocket.last.url).not.toContain("h.one.s");
  });

  it("is asked for again after a refusal, with a wait", async () => {
    let asked = 0;
    const client = await follow({ token: () => Promise.resolve(JWT(String(asked++))) });
    FakeSocket.last.says(bye(4401, "expired"));
    FakeSocket.last.ends(4401);
    expect(client.state).toMatchObject({ phase: "reconnecting", reason: "expired" });
    expect(wait(client)).toBeLessThanOrEqual(500);
    await pass(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.1.s");
    FakeSocket.last.begins();
    expect(client.state.phase).toBe("live");
  });

  it("is refused five times at most", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    let asked = 0;
    const client = await follow({ token: () => Promise.resolve(JWT(String(asked++))) });
    for (let n = 0; n < 5; n++) {
      FakeSocket.last.ends(4401, "wrong key");
      await pass(0);
    }
    vi.mocked(Math.random).mockRestore();
    expect(client.state).toEqual({ phase: "closed", reason: "the relay rejected every token: wrong key" });
    expect(asked).toBe(5);
  });

  it("that was taken makes up for those that were refused before", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    let asked = 0;
    const client = await follow({ token: () => Promise.resolve(JWT(String(asked++))) });
    for (const round of [1, 2, 3]) {
      for (let n = 0; n < 4; n++) {
        FakeSocket.last.ends(4401, `in round ${round}`);
        await pass(0);
      }
      FakeSocket.last.begins("e-1");
      expect(client.state.phase).toMatch(/live|catching-up/);
    }
    vi.mocked(Math.random).mockRestore();
  });

  it("that cannot be had is asked for a few times, and the reason told", async () => {
    let asked = 0;
    const token = (): Promise<string> => {
      asked++;
      return Promise.reject(new Error("no one is logged in"));
    };
    const client = await follow({ token });
    expect(client.state).toMatchObject({
      phase: "reconnecting",
      reason: "token() failed: no one is logged in",
    });
    await pass(60_000);
    expect(client.state).toEqual({ phase: "closed", reason: "token() failed: no one is logged in" });
    expect(asked).toBe(5);
    client.reconnect();
    await pass(60_000);
    expect(asked).toBe(10);
  });

  it("that is none ends it, without the text", async () => {
    const client = await follow({ token: () => "secret words" });
    expect(client.state).toEqual({
      phase: "closed",
      reason: "token() did not return a JWT: expected three parts separated by dots",
    });
  });

  it("is asked for until there is a new one, when it ends soon", async () => {
    let now = JWT("old");
    const client = await follow({ token: () => now });
    FakeSocket.last.begins();
    FakeSocket.last.says({ type: "token_expiring", expires_at: "" });
    await pass(5_000);
    expect(FakeSocket.last.sent).toEqual([]);
    now = JWT("new");
    await pass(10_000);
    expect(FakeSocket.last.sent).toEqual([{ type: "auth", token: JWT("new") }]);
    // It cannot be looked at now: the same once more, later.
    FakeSocket.last.says({ type: "error", code: "unavailable", message: "keys", retry: true, ref: "auth" });
    await pass(5_000);
    expect(FakeSocket.last.sent.length).toBe(2);
    FakeSocket.last.says(subscribed("e-1", true));
    FakeSocket.last.ends();
    await pass(1_000);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.new.s");
    expect(client.state.phase).toBe("reconnecting");
  });

  it("in use is used on when the next one is refused; when it ended itself, the next one is", async () => {
    const given = [JWT("a"), JWT("b"), JWT("c")];
    await follow({ token: () => given.shift() ?? JWT("d") });
    FakeSocket.last.begins();
    FakeSocket.last.says({ type: "token_expiring", expires_at: "" });
    await pass(0);
    FakeSocket.last.says({ type: "error", code: "unauthorized", message: "", retry: true, ref: "auth" });
    FakeSocket.last.ends(4401);
    await pass(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.a.s");
    FakeSocket.last.begins();
    FakeSocket.last.says({ type: "token_expiring", expires_at: "" });
    await pass(0);
    FakeSocket.last.says({ type: "error", code: "unauthorized", message: "", retry: true, ref: null });
    FakeSocket.last.ends(4401);
    await pass(1_000);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.c.s");
  });

  it("that there is none of lets the relay say whether it needs one", async () => {
    let given: string | null = null;
    const client = await follow({ token: () => given });
    expect(FakeSocket.last.protocols).toEqual(["tickertape.v1"]);
    FakeSocket.last.begins();
    FakeSocket.last.ends();
    await pass(500);
    FakeSocket.last.says(bye(4401, "a token is needed"));
    FakeSocket.last.ends(4401);
    expect(client.state).toMatchObject({ phase: "reconnecting", reason: "a token is needed" });
    given = JWT("late");
    await pass(1_000);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.late.s");
  });

  it("is renewed when the page says so", async () => {
    let now: string | null = JWT("old");
    const client = await follow({ token: () => now });
    client.renew();
    await pass(0);
    expect(FakeSocket.last.sent).toEqual([]);
    FakeSocket.last.begins();
    now = JWT("new");
    client.renew();
    await pass(0);
    expect(FakeSocket.last.sent).toEqual([{ type: "auth", token: JWT("new") }]);
  });

  it("is not taken by the answer to a filter, and costs the one in use nothing when it is refused", async () => {
    let now = JWT("good");
    const client = await follow({ token: () => now });
    const taken: string[] = [];
    client.onRenewal((token) => taken.push(token));
    FakeSocket.last.begins();
    client.setFilter({ subjects: ["gateway.>"] });
    await pass(0);
    now = JWT("bad");
    client.renew();
    await pass(0);
    expect(FakeSocket.last.sent.map(({ type }) => type)).toEqual(["subscribe", "auth"]);
    FakeSocket.last.says(subscribed("e-1"));
    FakeSocket.last.says({ type: "error", code: "unauthorized", message: "", retry: true, ref: "auth" });
    FakeSocket.last.ends(4401);
    await pass(500);
    expect(client.state.phase).toBe("reconnecting");
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.good.s");
    expect(taken).toEqual([]);
  });

  it("is taken in the order in which it was sent, and the one after it may be refused", async () => {
    let now = JWT("a");
    const client = await follow({ token: () => now });
    const taken: string[] = [];
    client.onRenewal((token) => taken.push(token));
    FakeSocket.last.begins();
    for (const name of ["b", "c"]) {
      now = JWT(name);
      client.renew();
      await pass(0);
    }
    client.setFilter({ subjects: ["gateway.>"] });
    await pass(0);
    FakeSocket.last.says(subscribed("e-1", true));
    expect(taken).toEqual([JWT("b")]);
    FakeSocket.last.says({ type: "error", code: "unauthorized", message: "", retry: true, ref: "auth" });
    FakeSocket.last.ends(4401);
    await pass(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.b.s");
  });

  it("that cannot be looked at is not taken by the answer to a filter", async () => {
    let now = JWT("a");
    const client = await follow({ token: () => now });
    FakeSocket.last.begins();
    now = JWT("b");
    client.renew();
    await pass(0);
    client.setFilter({ subjects: ["gateway.>"] });
    await pass(0);
    FakeSocket.last.says({ type: "error", code: "unavailable", message: "", retry: true, ref: "auth" });
    FakeSocket.last.says(subscribed("e-1"));
    FakeSocket.last.ends();
    await pass(500);
    expect(FakeSocket.last.protocols[1]).toBe("bearer.h.a.s");
  });

  it("is not asked for any more once the relay took the next one", async () => {
    let now = JWT("old");
    let asked = 0;
    let answer: ((token: string) => void) | null = null;
    let slow = false;
    const client = await follow({
      token: () => {
        asked++;
        return slow ? new Promise((resolve) => (answer = resolve)) : now;
      },
    });
    FakeSocket.last.begins();
    FakeSocket.last.says({ type: "token_expiring", expires_at: "" });
    await pass(0);
    now = JWT("new");
    client.renew();
    await pass(0);
    // Asked once more before the answer is there.
    slow = true;
    FakeSocket.last.says({ type: "token_expiring", expires_at: "" });
    FakeSocket.last.says(subscribed("e-1", true));
    (answer as unknown as (token: string) => void)(now);
    asked = 0;
    for (let n = 0; n < 12; n++) {
      await pass(5_000);
      FakeSocket.last.says({ type: "heartbeat", cursor: "e-1", time: "" });
    }
    expect(asked).toBe(0);
    expect(client.state.phase).toBe("live");
  });
});
