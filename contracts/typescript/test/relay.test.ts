/** The client with a real relay, which is killed, restarted and cut off from NATS. */

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
import { Desk, until } from "./desk.js";

const open: Client[] = [];
let sockets = 0;

class Counted extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols);
    sockets++;
  }
}

function follow(url: string, options: Options = {}): Client {
  const client = connect(url, { WebSocket: Counted, ...options });
  open.push(client);
  return client;
}

function collect(client: Client, pattern: string): Received[] {
  const events: Received[] = [];
  client.on(pattern, (event) => events.push(event));
  return events;
}

const seqs = (events: Received[]): number[] => events.filter((one) => !one.snapshot).map((one) => one.seq);
const range = ([first, last]: [number, number]): number[] =>
  Array.from({ length: last - first + 1 }, (_, place) => first + place);
const live = (client: Client): Promise<void> => until(() => client.state.phase === "live", "live");

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
  });
  afterAll(() => desk.close());

  it("serves many handlers over one socket, each with what its pattern selects", async () => {
    const client = follow(desk.url);
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

  it("adds and removes handlers in mid-session without losing its place", async () => {
    const client = follow(desk.url);
    const asked: string[][] = [];
    client.onMessage((message) => message.type === "subscribed" && asked.push(message.subjects));
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
    // Once for each turn of the event loop: first on, then off and on together, and the last off.
    expect(asked.length).toBeLessThanOrEqual(22);
    expect(asked.at(-1)).toEqual(["gateway.status.>", "log.info.>"]);
    for (const events of changes)
      expect(events.map((one) => one.subject)).toContain("gateway.status.ctp.standing");
  });

  it("follows something else from the same place on, when the filter changes", async () => {
    const client = follow(desk.url, { subjects: ["log.>"], level: "WARN" });
    const events = collect(client, "log.>");
    await live(client);
    await desk.lines(1);
    const errors = await desk.lines(1, { level: "ERROR" });
    await until(() => events.length === 1, "what passes the first filter is there");
    const asked: string[] = [];
    client.onMessage((message) => message.type === "subscribed" && asked.push(message.level));
    client.setFilter({ subjects: ["log.info.>"] });
    client.setFilter({ subjects: ["log.>"], level: "INFO" });
    await until(() => asked.length === 1, "the relay answers the last filter");
    const infos = await desk.lines(2);
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual([...range(errors), ...range(infos)]);
    expect(asked).toEqual(["INFO"]);
    expect(sockets).toBe(1);
  });

  it("shows a late handler how things stand, also when its pattern was asked for already", async () => {
    const client = follow(desk.url);
    const first = collect(client, "gateway.status.>");
    await until(() => first.length > 0);
    const second = collect(client, "gateway.status.>");
    await until(() => second.length > 0);
    expect(second[0]).toMatchObject({ snapshot: true });
  });

  it("loses nothing and repeats nothing when the relay is killed, again and again", async () => {
    const client = follow(desk.url, { mode: "complete" });
    const phases: State["phase"][] = [];
    client.onState((state) => phases.push(state.phase));
    const events = collect(client, "log.>");
    await live(client);
    const publishing = desk.lines(6_000, { pause: 0.2 });
    for (const kills of [1, 2]) {
      const before = events.length;
      await until(() => events.length > before + 500, `events come before kill ${kills}`);
      await desk.do("kill");
      await desk.do("start");
      // What the handlers want changes in the middle of it, too.
      client.on("gateway.status.>", () => {});
    }
    const sent = await publishing;
    await until(() => events.at(-1)?.seq === sent[1]);
    expect(seqs(events)).toEqual(range(sent));
    await live(client);
    expect(phases.slice(0, 3)).toEqual(["connecting", "live", "reconnecting"]);
    expect(phases.slice(-2)).toEqual(["catching-up", "live"]);
  });

  it("comes back after an orderly end, at the time that the relay named", async () => {
    const client = follow(desk.url);
    const events = collect(client, "log.>");
    await live(client);
    let retryAfter: number | null = null;
    client.onMessage((message) => {
      if (message.type === "bye") retryAfter = message.retry_after_ms;
    });
    const reasons: string[] = [];
    client.onState((state) => reasons.push(state.reason));
    const said = performance.now();
    await desk.do("stop");
    expect(retryAfter).toBeTypeOf("number");
    expect(client.state.phase).toBe("reconnecting");
    expect(reasons.at(-1)).toMatch(/\S/);
    const sent = await desk.lines(3);
    await desk.do("start");
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual(range(sent));
    expect(performance.now() - said).toBeGreaterThan(Number(retryAfter));
  });

  it("goes on where the client before it ended, with a store; and shows how things stand", async () => {
    let kept: string | null = null;
    const cursorStore = { load: () => kept, save: (cursor: string) => void (kept = cursor) };
    const before = follow(desk.url, { cursorStore });
    const events = collect(before, "log.>");
    await live(before);
    const first = await desk.lines(5);
    await until(() => events.length === 5 && kept !== null && before.cursor === kept);
    before.close();
    const second = await desk.lines(5);
    const after = follow(desk.url, { cursorStore });
    const rest = collect(after, "log.>");
    const gateways = collect(after, "gateway.>");
    await until(() => rest.length === 5 && gateways.length > 0);
    expect(seqs(events)).toEqual(range(first));
    expect(seqs(rest)).toEqual(range(second));
    expect(gateways[0]?.snapshot).toBe(true);
  });

  it("begins in the past with since, and says when it has caught up", async () => {
    const client = follow(desk.url, { since: "earliest", mode: "complete" });
    const phases: string[] = [];
    client.onState((state) => phases.push(state.phase));
    const events = collect(client, ">");
    await live(client);
    expect(phases).toEqual(["connecting", "catching-up", "live"]);
    expect(events[0]?.seq).toBe(1);
  });

  it("says when the relay loses NATS, and when it is back", async () => {
    const client = follow(desk.url, { subjects: ["log.>"] });
    await live(client);
    const heard: boolean[] = [];
    client.onUpstream(({ connected }) => heard.push(connected));
    await desk.do("nats_stop");
    await until(() => heard.length === 1);
    expect(client.upstream.connected).toBe(false);
    await desk.do("nats_start");
    await until(() => heard.length === 2);
    expect(heard).toEqual([false, true]);
    expect(client.state.phase).toBe("live");
  });

  it("hands on an event of a type that it does not know", async () => {
    const client = follow(desk.url);
    const events = collect(client, "system.>");
    await live(client);
    const body = { event_type: "my_own", timestamp: "2025-06-24T10:30:45.123Z", price: 1.5 };
    await desk.do("event", { subject: "system.custom.thing", body });
    await until(() => events.length === 1);
    expect(events[0]?.event).toEqual(body);
  });

  it("takes 100 000 events without growing", async () => {
    const client = follow(desk.url, { mode: "complete" });
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

describe("with a slow rate", () => {
  const desk = new Desk();
  beforeAll(() => desk.relay({ options: ["--client-rate", "10"] }));
  afterAll(() => desk.close());

  it("tells of gaps, and what came and what is missing make the whole", async () => {
    const client = follow(desk.url);
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

  it("renews its token on the running socket", async () => {
    const ends: (string | null | undefined)[] = [];
    let asked = 0;
    // A token with less than a minute left is warned of at once.
    const token = (): Promise<string> => desk.do<string>("token", { life: asked++ ? 3600 : 30 });
    const client = follow(desk.url, { token });
    client.onMessage((message) => message.type === "subscribed" && ends.push(message.expires_at));
    const events = collect(client, "log.>");
    await until(() => ends.length === 2);
    const sent = await desk.lines(3);
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual(range(sent));
    expect(asked).toBe(2);
    expect(sockets).toBe(1);
    expect(Date.parse(ends[1] ?? "") - Date.parse(ends[0] ?? "")).toBeGreaterThan(3_000_000);
  });

  it("comes back with another token when one has ended, and loses nothing", async () => {
    let asked = 0;
    const given: string[] = [];
    const phases: string[] = [];
    const token = async (): Promise<string> => {
      // Whatever is to renew the first while it lasts comes to nothing.
      if (++asked > 1 && !phases.includes("reconnecting")) throw new Error("no");
      const one = await desk.do<string>("token", { life: asked === 1 ? 8 : 3600 });
      given.push(one);
      return one;
    };
    const client = follow(desk.url, { token });
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

  it("gives up when it is given a refused token again", async () => {
    const token = await desk.do<string>("token", { life: -100 });
    const client = follow(desk.url, { token: () => token, subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/rejected the token \(.+\) and token\(\) returned the same one again/);
    expect(client.state.reason).not.toContain(token);
    expect(sockets).toBe(1);
  });

  it("gives up without a token, and says what is wanted", async () => {
    const client = follow(desk.url, { subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/^the relay requires a token/);
  });

  it("gives up where nothing is granted", async () => {
    const token = (): Promise<string> => desk.do("token", { subjects: ["log.>"] });
    const client = follow(desk.url, { token, subjects: ["gateway.>"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/\S/);
  });
});
