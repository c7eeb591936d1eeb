/** The client with a feed that is mounted in a FastAPI application, which is killed and started again. */

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";

import { connect, type Client, type Options, type Received, type State } from "../src/index.js";
import { Desk, until } from "./desk.js";

interface Health {
  status: string;
  upstream: string;
  connections: number;
  ready: boolean;
}

const desk = new Desk();
const open: Client[] = [];
let page = "";

function follow(options: Options = {}): Client {
  const client = connect(desk.url, { WebSocket, ...options });
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

/** What the application's own page says of the feed; it answers 200 however the feed is. */
async function health(): Promise<Health | undefined> {
  const answer = await fetch(page);
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { feeds: Record<string, Health> }).feeds["/feed"];
}

async function untilHealth(what: Partial<Health>): Promise<void> {
  await expect.poll(health, { timeout: 120_000 }).toMatchObject(what);
}

beforeAll(async () => {
  page = await desk.host();
});
afterEach(() => {
  for (const client of open.splice(0)) client.close();
});
afterAll(() => desk.close());

describe("a feed in a FastAPI application", () => {
  it("gives each handler what its pattern selects, a snapshot first", async () => {
    const standing = await desk.do<number>("status", { gateway: "standing", current: "HEALTHY" });
    const client = follow();
    const phases: State["phase"][] = [];
    client.onState((state) => phases.push(state.phase));
    const errors = collect(client, "log.error.>");
    const gateways = collect(client, "gateway.status.>");
    await live(client);
    await until(() => gateways.length === 1, "the snapshot");
    await desk.lines(3);
    const failed = await desk.lines(2, { level: "ERROR" });
    const changed = await desk.do<number>("status", { gateway: "standing", current: "UNHEALTHY" });
    await until(() => gateways.length === 2, "the change");
    expect(gateways).toMatchObject([
      { seq: standing, snapshot: true, event: { current_status: "HEALTHY" } },
      { seq: changed, snapshot: false, event: { current_status: "UNHEALTHY" } },
    ]);
    expect(seqs(errors)).toEqual(range(failed));
    expect(phases).toEqual(["connecting", "live"]);
  });

  it("loses nothing and repeats nothing when the application is killed, again and again", async () => {
    const client = follow({ mode: "complete" });
    const phases: State["phase"][] = [];
    const gaps: unknown[] = [];
    client.onState((state) => phases.push(state.phase));
    client.onGap((gap) => gaps.push(gap));
    const events = collect(client, "log.>");
    await live(client);
    const publishing = desk.lines(6_000, { pause: 0.2 });
    for (const kill of [1, 2]) {
      const before = events.length;
      await until(() => events.length > before + 500, `events come before kill ${kill}`);
      await desk.do("kill");
      await until(() => client.state.phase === "reconnecting", "the loss is seen");
      await desk.do("start");
    }
    const missed = await publishing;
    await until(() => events.at(-1)?.seq === missed[1], "the last event");
    await live(client);
    const after = await desk.lines(5);
    await until(() => events.at(-1)?.seq === after[1], "an event after all of it");
    expect(seqs(events)).toEqual([...range(missed), ...range(after)]);
    expect(gaps).toEqual([]);
    expect(phases.slice(0, 3)).toEqual(["connecting", "live", "reconnecting"]);
    expect(phases.slice(-2)).toEqual(["catching-up", "live"]);
    expect(phases).not.toContain("closed");
  }, 60_000);

  it("is asked by the application's own health page", async () => {
    await untilHealth({ status: "ok", upstream: "connected", connections: 0, ready: true });
    const client = follow({ subjects: ["log.>"] });
    await live(client);
    await untilHealth({ status: "ok", connections: 1 });
    await desk.do("nats_stop");
    await until(() => !client.upstream.connected, "the client hears of it");
    await untilHealth({ upstream: "disconnected", connections: 1, ready: false });
    await desk.do("nats_start");
    await until(() => client.upstream.connected, "the client hears of the end of it");
    await untilHealth({ status: "ok", upstream: "connected", connections: 1, ready: true });
    expect(client.state.phase).toBe("live");
    client.close();
    await untilHealth({ connections: 0 });
  });

  it("comes back after an orderly end of the application", async () => {
    const client = follow();
    const events = collect(client, "log.>");
    await live(client);
    const codes: number[] = [];
    client.onMessage((message) => message.type === "bye" && codes.push(message.code));
    await desk.do("stop");
    expect(client.state.phase).toBe("reconnecting");
    const missed = await desk.lines(3);
    await desk.do("start");
    await until(() => events.length === 3, "what was missed");
    expect(seqs(events)).toEqual(range(missed));
    expect(codes).toEqual([1001]);
  });
});
