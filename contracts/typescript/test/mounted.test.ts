/** Client with a feed mounted in a FastAPI application that is killed and restarted. */

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";

import { connect, type Client, type Options, type State } from "../src/index.js";
import { Desk, collect, live, range, seqs, until } from "./desk.js";

interface Health {
  status: string;
  upstream: string;
  connections: number;
  ready: boolean;
}

const desk = new Desk();
const open: Client[] = [];
let page = "";

function connectClient(options: Options = {}): Client {
  const client = connect(desk.url, { WebSocket, ...options });
  open.push(client);
  return client;
}

/** Fetch the feed's health from the application's health page, which always responds with 200. */
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

describe("a feed mounted in a FastAPI application", () => {
  it("delivers to each handler what its pattern selects, starting with a snapshot", async () => {
    const standing = await desk.do<number>("status", { gateway: "standing", current: "HEALTHY" });
    // The feed reads it in its own time; a snapshot contains it once another client has received it.
    const first = connectClient();
    const received = collect(first, "gateway.status.>");
    await until(() => received.length === 1, "the status");
    first.close();
    const client = connectClient();
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

  it("neither loses nor repeats an event when the application is killed twice", async () => {
    const client = connectClient({ mode: "complete" });
    const phases: State["phase"][] = [];
    const gaps: unknown[] = [];
    client.onState((state) => phases.push(state.phase));
    client.onGap((gap) => gaps.push(gap));
    const events = collect(client, "log.>");
    await live(client);
    const publishing = desk.lines(6_000, { pause: 0.2 });
    for (const kill of [1, 2]) {
      const before = events.length;
      await until(() => events.length > before + 500, `events arrive before kill ${kill}`);
      await desk.do("kill");
      await until(() => client.state.phase === "reconnecting", "the client notices");
      await desk.do("start");
    }
    const missed = await publishing;
    await until(() => events.at(-1)?.seq === missed[1], "the last event");
    await live(client);
    const after = await desk.lines(5);
    await until(() => events.at(-1)?.seq === after[1], "an event after the restarts");
    expect(seqs(events)).toEqual([...range(missed), ...range(after)]);
    expect(gaps).toEqual([]);
    expect(phases.slice(0, 3)).toEqual(["connecting", "live", "reconnecting"]);
    expect(phases.slice(-2)).toEqual(["catching-up", "live"]);
    expect(phases).not.toContain("closed");
  }, 60_000);

  it("reports its state to the application's health page", async () => {
    await untilHealth({ status: "ok", upstream: "connected", connections: 0, ready: true });
    const client = connectClient({ subjects: ["log.>"] });
    await live(client);
    await untilHealth({ status: "ok", connections: 1 });
    await desk.do("nats_stop");
    await until(() => !client.upstream.connected, "the client reports the outage");
    await untilHealth({ upstream: "disconnected", connections: 1, ready: false });
    await desk.do("nats_start");
    await until(() => client.upstream.connected, "the client reports the recovery");
    await untilHealth({ status: "ok", upstream: "connected", connections: 1, ready: true });
    expect(client.state.phase).toBe("live");
    client.close();
    await untilHealth({ connections: 0 });
  });

  it("is resumed after a graceful shutdown of the application", async () => {
    const client = connectClient();
    const events = collect(client, "log.>");
    await live(client);
    const codes: number[] = [];
    client.onMessage((message) => message.type === "bye" && codes.push(message.code));
    await desk.do("stop");
    await until(() => client.state.phase === "reconnecting", "the client reconnects");
    const missed = await desk.lines(3);
    await desk.do("start");
    await until(() => events.length === 3, "the missed events");
    expect(seqs(events)).toEqual(range(missed));
    expect(codes).toEqual([1001]);
  });
});
