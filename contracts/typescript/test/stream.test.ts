/** Client with a real relay behind a proxy that forbids WebSockets. */

import { createServer, request, type IncomingMessage, type Server } from "node:http";
import { connect as connectTcp, type AddressInfo, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";

import { connect, type Client, type Options, type RelayMessage } from "../src/index.js";
import { Desk, collect, live, range, seqs, until } from "./desk.js";

/** Proxy that passes HTTP on, and upgrades only if they are allowed. */
class Proxy {
  allowUpgrades = false;
  upgrades = 0;
  readonly requests: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(readonly target: URL) {
    this.#server = createServer((incoming, outgoing) => {
      this.requests.push(`${incoming.method} ${incoming.url?.split("?")[0]}`);
      const { method, url, headers } = incoming;
      const onward = request({ host: target.hostname, port: target.port, method, path: url, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
        answer.on("error", () => outgoing.destroy());
      });
      onward.on("error", () => outgoing.destroy());
      outgoing.on("close", () => onward.destroy());
      incoming.pipe(onward);
    });
    this.#server.on("connection", (socket) => this.#sockets.add(socket));
    this.#server.on("upgrade", (incoming, socket: Socket, head) => this.#upgrade(incoming, socket, head));
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/ws`;
  }

  /** Break all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #upgrade(incoming: IncomingMessage, socket: Socket, head: Buffer): void {
    this.upgrades++;
    if (!this.allowUpgrades) {
      socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      return;
    }
    const onward = connectTcp(Number(this.target.port), this.target.hostname, () => {
      const { rawHeaders: raw } = incoming;
      const lines = raw.flatMap((name, index) => (index % 2 ? [] : [`${name}: ${raw[index + 1]}`]));
      onward.write(`GET ${incoming.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    for (const side of [socket, onward]) {
      side.on("error", () => {});
      side.on("close", () => (side === socket ? onward : socket).destroy());
    }
  }
}

const open: { close(): void }[] = [];

function connectClient(url: string, options: Options = {}): Client {
  const client = connect(url, { WebSocket, ...options });
  open.push(client);
  return client;
}

afterEach(() => {
  for (const one of open.splice(0).reverse()) one.close();
});

/** Set up a relay, and for each test a proxy before the relay. */
function behindProxy(auth: boolean): { desk: Desk; proxy: () => Proxy; url: () => string } {
  const desk = new Desk();
  let proxy: Proxy;
  let url: string;
  beforeAll(() => desk.relay({ auth, options: auth ? ["--jwt-leeway", "0"] : [] }));
  afterAll(() => desk.close());
  beforeEach(async () => {
    proxy = new Proxy(new URL(desk.url));
    open.push(proxy);
    url = await proxy.start();
  });
  return { desk, proxy: () => proxy, url: () => url };
}

describe("behind a proxy that forbids upgrades", () => {
  const { desk, proxy, url } = behindProxy(false);

  it("falls back to a stream, and resumes without losing or repeating events", async () => {
    const client = connectClient(url(), { mode: "complete" });
    const events = collect(client, "log.>");
    const gaps: unknown[] = [];
    client.onGap((gap) => gaps.push(gap));
    await live(client);
    expect(client.transport).toBe("stream");
    expect(proxy().upgrades).toBe(2);
    const publishing = desk.lines(3_000, { pause: 0.2 });
    for (const cuts of [1, 2]) {
      const before = events.length;
      await until(() => events.length > before + 300, `events arrive before cut ${cuts}`);
      proxy().cut();
    }
    const sent = await publishing;
    await until(() => events.at(-1)?.seq === sent[1]);
    expect(seqs(events)).toEqual(range(sent));
    expect(gaps).toEqual([]);
    expect(client.transport).toBe("stream");
  });

  it("stays on the stream when the relay restarts", async () => {
    const client = connectClient(url());
    const events = collect(client, "log.>");
    await live(client);
    await desk.do("kill");
    await until(() => client.state.phase === "reconnecting");
    await desk.do("start");
    const sent = await desk.lines(3);
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual(range(sent));
    expect(client.transport).toBe("stream");
  });

  it("changes its filter and its handlers with another request, without a change of state", async () => {
    await desk.do("status", { gateway: "standing", current: "HEALTHY" });
    const client = connectClient(url(), { subjects: [">"], level: "WARN" });
    const events = collect(client, "log.>");
    await live(client);
    const first = await desk.lines(1, { level: "ERROR" });
    await until(() => events.length === 1);
    const phases: string[] = [];
    client.onState(({ phase }) => phases.push(phase));
    const answers: string[] = [];
    client.onMessage((message) => message.type === "subscribed" && answers.push(message.level));
    client.setFilter({ level: "INFO" });
    await until(() => answers.length === 1, "the answer to the filter");
    const second = await desk.lines(2);
    await until(() => events.length === 3);
    const states = collect(client, "gateway.status.>");
    await until(() => states.length > 0, "the states for a new handler");
    const third = await desk.lines(1);
    await until(() => events.length === 4);
    expect(seqs(events)).toEqual([...range(first), ...range(second), ...range(third)]);
    expect(states[0]?.snapshot).toBe(true);
    expect(answers).toEqual(["INFO", "INFO"]);
    expect(phases).toEqual([]);
  });

  it("closes with the relay's reason for an invalid filter", async () => {
    const client = connectClient(url(), { subjects: [">"] });
    await live(client);
    const byes: RelayMessage[] = [];
    client.onMessage((message) => message.type === "bye" && byes.push(message));
    client.setFilter({ where: "event.level = 1" });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toContain("position 13");
    expect(byes).toMatchObject([{ code: 4409 }]);
  });

  it("uses a WebSocket, and sends no other request, if the proxy allows it", async () => {
    proxy().allowUpgrades = true;
    const client = connectClient(url(), { subjects: [">"] });
    await live(client);
    proxy().cut();
    await until(() => client.state.phase !== "live");
    await live(client);
    expect(client.transport).toBe("websocket");
    expect(proxy().requests.filter((line) => line.startsWith("GET"))).toEqual([]);
  });

  it("does not fall back while the relay is down", async () => {
    proxy().allowUpgrades = true;
    await desk.do("kill");
    const client = connectClient(url(), { subjects: [">"] });
    await until(() => proxy().upgrades >= 4, "four failed attempts");
    await desk.do("start");
    await live(client);
    expect(client.transport).toBe("websocket");
    expect(proxy().requests.filter((line) => line.startsWith("GET"))).toEqual([]);
  });
});

describe("behind a proxy that forbids upgrades, with tokens", () => {
  const { desk, url } = behindProxy(true);

  it("renews its token with another request", async () => {
    const renewed: string[] = [];
    const given: string[] = [];
    const token = async (): Promise<string> => {
      given.push(await desk.do<string>("token", { life: given.length ? 3600 : 50 }));
      return given.at(-1) ?? "";
    };
    const client = connectClient(url(), { token });
    client.onRenewal((next) => renewed.push(next));
    const events = collect(client, "log.>");
    await until(() => renewed.length === 1);
    const sent = await desk.lines(3);
    await until(() => events.length === 3);
    expect(seqs(events)).toEqual(range(sent));
    expect(renewed).toEqual([given[1]]);
    expect(client.transport).toBe("stream");
  });

  it("gives up when token() returns a rejected token again", async () => {
    const token = await desk.do<string>("token", { life: -100 });
    const client = connectClient(url(), { token: () => token, subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/rejected the token \(.+\) and token\(\) returned the same one again/);
  });

  it("gives up without a token option, and names the reason", async () => {
    const client = connectClient(url(), { subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toMatch(/^the relay requires a token/);
  });
});
