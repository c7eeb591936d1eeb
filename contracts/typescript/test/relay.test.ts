/** Client with a real relay that is killed, restarted and disconnected from NATS. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";

import {
  connect,
  type Client,
  type GapMessage,
  type Options,
  type Received,
  type State,
} from "../src/index.js";
import { Desk, collect, live, range, seqs, until } from "./desk.js";

const open: Client[] = [];
let sockets = 0;

class Counted extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols);
    sockets++;
  }
}

function connectClient(url: string, options: Options = {}): Client {
  const client = connect(url, { WebSocket: Counted, ...options });
  open.push(client);
  return client;
}

beforeEach(() => {
  sockets = 0;
});
afterEach(() => {
  for (const client of open.splice(0)) client.close();
});

describe("without tokens", () => {
  const desk = new Desk();
  beforeAll(async () => {
    await desk.relay();
    await desk.do("status", { gateway: "standing", current: "HEALTHY" });
    // The relay reads it in its own time; a snapshot contains it once another client has received it.
    const client = connectClient(desk.url);
    const gateways = collect(client, "gateway.status.>");
    await until(() => gateways.length === 1, "the status");
    client.close();
  });
  afterAll(() => desk.close());

  it("serves many handlers over one socket, each according to its pattern", async () => {
    const client = connectClient(desk.url);
    const errors = collect(client, "log.error.>");
    const all = collect(client, "log.>");
    const gateways = collect(client, "gateway.status.>");
    await live(client);
    await desk.lines(1, { level: "ERROR" });
    await desk.lines(2);
    await desk.do("status", { gateway: "union", current: "HEALTHY" });
    await until(() => all.length === 3 && gateways.length === 2);
    expect(errors).toMatchObject([{ event: { message: "line 0", level: "ERROR" } }]);
    expect(gateways).toMatchObject([
      { subject: "gateway.status.ctp.standing", snapshot: true },
      { subject: "gateway.status.ctp.union", snapshot: false },
    ]);
    expect(sockets).toBe(1);
  });

  it("adds and removes handlers during a session without losing events", async () => {
    const client = connectClient(desk.url);
    const subscriptions: string[][] = [];
    client.onMessage((message) => message.type === "subscribed" && subscriptions.push(message.subjects));
    const infos = collect(client, "log.info.>");
    await live(client);
    const publishing = desk.lines(3_000, { text: "busy" });
    const changes: Received[][] = [];
    for (let n = 0; n < 20; n++) {
      const off = client.on("log.warn.>", () => {});
      changes.push(collect(client, "gateway.status.>"));
      await new Promise((resolve) => setTimeout(resolve, 5));
      off();
    }
    const sent = await publishing;
    await until(() => infos.at(-1)?.seq === sent[1]);
    expect(seqs(infos)).toEqual(range(sent));
    expect(sockets).toBe(1);
    // One per turn of the event loop: the first addition, then a removal and an addition at a time, and the last removal.
    expect(subscriptions.length).toBeLessThanOrEqual(22);
    expect(subscriptions.at(-1)).toEqual(["gateway.status.>", "log.info.>"]);
    for (const events of changes)
      expect(events.map(({ subject }) => subject)).toContain("gateway.status.ctp.standing");
  });

  it("changes the filter without losing or repeating events", async () => {
    const client = connectClient(desk.url, { subjects: ["log.>"], level: "WARN" });
    const events = collect(client, "log.>");
    await live(client);
    await desk.lines(1);
    const errors = await desk.lines(1, { level: "ERROR" });
    await until(() => events.length === 1, "the event that passes the first filter");
    const levels: string[] = [];
    client.onMessage((message) => message.type === "subscribed" && levels.push(message.level));
    client.setFilter({ subjects: ["log.info.>"] });
    client.setFilter({ subjects: ["log.>"], level: "INFO" });
    await until(() => levels.length === 1, "the answer to the last filter");
    const infos = await desk.lines(2);
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual([...range(errors), ...range(infos)]);
    expect(levels).toEqual(["INFO"]);
    expect(sockets).toBe(1);
  });

  it("receives the log events that fulfil a condition, and all states", async () => {
    const where = 'event.level == "ERROR" && event.message.contains("line")';
    const client = connectClient(desk.url, { where });
    const answers: (string | null | undefined)[] = [];
    client.onMessage((message) => message.type === "subscribed" && answers.push(message.where));
    const logs = collect(client, "log.>");
    const gateways = collect(client, "gateway.status.>");
    await live(client);
    await desk.lines(2);
    const errors = await desk.lines(1, { level: "ERROR" });
    await until(() => logs.length === 1 && gateways.length > 0);
    expect(seqs(logs)).toEqual(range(errors));
    client.setFilter({ where: 'event.level == "INFO"' });
    await until(() => answers.length === 2, "the answer to the new condition");
    const infos = await desk.lines(1);
    await until(() => logs.length === 2);
    expect(seqs(logs)).toEqual([...range(errors), ...range(infos)]);
    expect(answers).toEqual([where, 'event.level == "INFO"']);
    expect(sockets).toBe(1);
  });

  it("closes with the position of an error in a condition", async () => {
    const client = connectClient(desk.url, { where: "event.level = 1" });
    collect(client, "log.>");
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toContain("position 13");
  });

  it("sends a snapshot to a late handler, even if its pattern is subscribed already", async () => {
    const client = connectClient(desk.url);
    const first = collect(client, "gateway.status.>");
    await until(() => first.length > 0);
    const second = collect(client, "gateway.status.>");
    await until(() => second.length > 0);
    expect(second[0]).toMatchObject({ snapshot: true });
  });

  it("neither loses nor repeats an event when the relay is killed twice", async () => {
    const client = connectClient(desk.url, { mode: "complete" });
    const phases: State["phase"][] = [];
    client.onState((state) => phases.push(state.phase));
    const events = collect(client, "log.>");
    await live(client);
    const publishing = desk.lines(6_000, { pause: 0.2 });
    for (const kills of [1, 2]) {
      const before = events.length;
      await until(() => events.length > before + 500, `events arrive before kill ${kills}`);
      await desk.do("kill");
      await desk.do("start");
      // The set of handlers changes during the outage, too.
      client.on("gateway.status.>", () => {});
    }
    const sent = await publishing;
    await until(() => events.at(-1)?.seq === sent[1]);
    expect(seqs(events)).toEqual(range(sent));
    await live(client);
    expect(phases.slice(0, 3)).toEqual(["connecting", "live", "reconnecting"]);
    expect(phases.slice(-2)).toEqual(["catching-up", "live"]);
  });

  it("reconnects after a graceful shutdown, after the delay that the relay set", async () => {
    const client = connectClient(desk.url);
    const events = collect(client, "log.>");
    await live(client);
    let retryAfter: number | null = null;
    client.onMessage((message) => {
      if (message.type === "bye") retryAfter = message.retry_after_ms;
    });
    const reasons: string[] = [];
    client.onState((state) => reasons.push(state.reason));
    const stoppedAt = performance.now();
    await desk.do("stop");
    await until(() => client.state.phase === "reconnecting", "the client reconnects");
    expect(retryAfter).toBeTypeOf("number");
    expect(reasons.at(-1)).toMatch(/\S/);
    const sent = await desk.lines(3);
    await desk.do("start");
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual(range(sent));
    expect(performance.now() - stoppedAt).toBeGreaterThan(Number(retryAfter));
  });

  it("resumes from the stored cursor of a previous client, and gets a snapshot", async () => {
    let kept: string | null = null;
    const cursorStore = { load: () => kept, save: (cursor: string) => void (kept = cursor) };
    const before = connectClient(desk.url, { cursorStore });
    const events = collect(before, "log.>");
    await live(before);
    const first = await desk.lines(5);
    await until(() => events.length === 5 && kept !== null && before.cursor === kept);
    before.close();
    const second = await desk.lines(5);
    const after = connectClient(desk.url, { cursorStore });
    const rest = collect(after, "log.>");
    const gateways = collect(after, "gateway.>");
    await until(() => rest.length === 5 && gateways.length > 0);
    expect(seqs(events)).toEqual(range(first));
    expect(seqs(rest)).toEqual(range(second));
    expect(gateways[0]?.snapshot).toBe(true);
  });

  it("starts in the past with since, and reports when it has caught up", async () => {
    const client = connectClient(desk.url, { since: "earliest", mode: "complete" });
    const phases: string[] = [];
    client.onState((state) => phases.push(state.phase));
    const events = collect(client, ">");
    await live(client);
    expect(phases).toEqual(["connecting", "catching-up", "live"]);
    expect(events[0]?.seq).toBe(1);
  });

  it("reports when the relay loses and regains its connection to NATS", async () => {
    const client = connectClient(desk.url, { subjects: ["log.>"] });
    await live(client);
    const reported: boolean[] = [];
    client.onUpstream(({ connected }) => reported.push(connected));
    await desk.do("nats_stop");
    await until(() => reported.length === 1);
    expect(client.upstream.connected).toBe(false);
    await desk.do("nats_start");
    await until(() => reported.length === 2);
    expect(reported).toEqual([false, true]);
    expect(client.state.phase).toBe("live");
  });

  it("delivers an event of an unknown type", async () => {
    const client = connectClient(desk.url);
    const events = collect(client, "system.>");
    await live(client);
    const body = { event_type: "my_own", timestamp: "2025-06-24T10:30:45.123Z", price: 1.5 };
    await desk.do("event", { subject: "system.custom.thing", body });
    await until(() => events.length === 1);
    expect(events[0]?.event).toEqual(body);
  });

  it("receives 100 000 events without leaking memory", async () => {
    const client = connectClient(desk.url, { mode: "complete" });
    let count = 0;
    let last = 0;
    let ordered = true;
    client.on("log.>", ({ seq }) => {
      ordered &&= seq > last;
      last = seq;
      count++;
    });
    await live(client);
    const heap = (): number => {
      globalThis.gc?.();
      return process.memoryUsage().heapUsed;
    };
    await desk.lines(10_000);
    await until(() => count === 10_000);
    const before = heap();
    await desk.lines(100_000);
    await until(() => count === 110_000);
    const grown = heap() - before;
    console.log(`heap after 100 000 events: ${(grown / 1024).toFixed(0)} KiB more`);
    expect(ordered).toBe(true);
    expect(grown).toBeLessThan(4 * 1024 * 1024);
  });
});

describe("with a low rate limit", () => {
  const desk = new Desk();
  beforeAll(() => desk.relay({ options: ["--client-rate", "10"] }));
  afterAll(() => desk.close());

  it("reports gaps: received and missing events add up to the published ones", async () => {
    const client = connectClient(desk.url);
    const gaps: GapMessage[] = [];
    client.onGap((gap) => gaps.push(gap));
    const events = collect(client, "log.>");
    await live(client);
    await desk.lines(300);
    const missing = (): number => gaps.reduce((sum, gap) => sum + (gap.dropped ?? 0), 0);
    await until(() => events.length + missing() === 300);
    expect(missing()).toBeGreaterThan(200);
    expect(gaps[0]).toMatchObject({ reason: "rate", by: { "log.info": expect.any(Number) as number } });
  });
});

describe("with tokens", () => {
  const desk = new Desk();
  beforeAll(() => desk.relay({ auth: true, options: ["--jwt-leeway", "0"] }));
  afterAll(() => desk.close());

  it("renews its token within the session", async () => {
    const ends: (string | null | undefined)[] = [];
    let calls = 0;
    // The relay immediately warns of a token that expires in less than a minute.
    const token = (): Promise<string> => desk.do<string>("token", { life: calls++ ? 3600 : 30 });
    const client = connectClient(desk.url, { token });
    client.onMessage((message) => message.type === "subscribed" && ends.push(message.expires_at));
    const events = collect(client, "log.>");
    await until(() => ends.length === 2);
    const sent = await desk.lines(3);
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual(range(sent));
    expect(calls).toBe(2);
    expect(sockets).toBe(1);
    expect(Date.parse(ends[1] ?? "") - Date.parse(ends[0] ?? "")).toBeGreaterThan(3_000_000);
  });

  it("reconnects with another token when one has expired, without losing events", async () => {
    let calls = 0;
    const given: string[] = [];
    const phases: string[] = [];
    const token = async (): Promise<string> => {
      // Renewals of the first token fail while it is valid.
      if (++calls > 1 && !phases.includes("reconnecting")) throw new Error("no");
      const jwt = await desk.do<string>("token", { life: calls === 1 ? 8 : 3600 });
      given.push(jwt);
      return jwt;
    };
    const client = connectClient(desk.url, { token });
    const events = collect(client, "log.>");
    client.onState((state) => phases.push(state.phase)); // from the start: a busy machine may take longer than the token
    await live(client);
    const first = await desk.lines(3);
    await until(() => phases.includes("reconnecting"));
    const second = await desk.lines(3);
    await until(() => events.length === 6);
    expect(seqs(events)).toEqual([...range(first), ...range(second)]);
    expect(new Set(given).size).toBe(2);
  });

  it("gives up when token() returns a rejected token again", async () => {
    const token = await desk.do<string>("token", { life: -100 });
    const client = connectClient(desk.url, { token: () => token, subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/rejected the token \(.+\) and token\(\) returned the same one again/);
    expect(client.state.reason).not.toContain(token);
    expect(sockets).toBe(1);
  });

  it("gives up without a token option, and names the reason", async () => {
    const client = connectClient(desk.url, { subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/^the relay requires a token/);
  });

  it("gives up if the token grants none of the subjects", async () => {
    const token = (): Promise<string> => desk.do("token", { subjects: ["log.>"] });
    const client = connectClient(desk.url, { token, subjects: ["gateway.>"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/\S/);
  });
});
