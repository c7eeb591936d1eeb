/** What the client does after each way in which a server can end a connection, or refuse one. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { WebSocket, WebSocketServer } from "ws";

import { CLOSE_CODES, connect, type Client, type Options, type State } from "../src/index.js";
import { until } from "./desk.js";
import { bye, events, subscribed, welcome } from "./fake.js";

const ends: (() => void)[] = [];

afterEach(() => {
  for (const end of ends.splice(0)) end();
});

/** A server on a port of its own; says what to do with each connection, of which it is told the number. */
async function serve(meet: (socket: WebSocket, count: number, url: string) => void): Promise<string> {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  let count = 0;
  server.on("connection", (socket, request) => meet(socket, ++count, request.url ?? ""));
  await new Promise((resolve) => server.once("listening", resolve));
  ends.push(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
}

async function refuse(status: number): Promise<string> {
  const server: Server = createServer((_, response) => response.end());
  server.on("upgrade", (_, socket) => socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => server.close());
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
}

function follow(url: string, options: Options = {}): { client: Client; states: State[] } {
  const client = connect(url, { WebSocket, subjects: [">"], ...options });
  ends.push(() => client.close());
  const states: State[] = [];
  client.onState((state) => states.push(state));
  return { client, states };
}

const say = (socket: WebSocket, ...messages: object[]): void =>
  messages.forEach((message) => socket.send(JSON.stringify(message)));

const begin = (socket: WebSocket): void =>
  say(socket, welcome(), subscribed("e-1"), { type: "snapshot", events: [], done: true });

const jwt = (name: number): string => `h.${name}.s`;

describe("each close code of the table", () => {
  for (const [code, rule] of Object.entries(CLOSE_CODES)) {
    const returns = rule.reconnect !== "never";
    it(`${code} ${rule.name}: ${rule.reconnect}`, async () => {
      const given: string[] = [];
      const url = await serve((socket, count) => {
        begin(socket);
        if (count > 1) return;
        say(socket, bye(Number(code), `because of ${code}`, code === "1001" ? 40 : null));
        socket.close(Number(code), `because of ${code}`);
      });
      const token = (): string => {
        given.push(jwt(given.length));
        return given.at(-1) ?? "";
      };
      const { client, states } = follow(url, { token });
      await until(() => states.some((state) => state.reason === `because of ${code}`));
      const [told] = states.filter((state) => state.reason === `because of ${code}`);
      expect(told?.phase).toBe(returns ? "reconnecting" : "closed");
      if (returns) await until(() => client.state.phase === "live");
      else await new Promise((resolve) => setTimeout(resolve, 20));
      expect(client.state.phase).toBe(returns ? "live" : "closed");
      expect(given.length).toBe(rule.reconnect === "new_token" ? 2 : 1);
    });
  }

  it("a code that is not in it is the network's: it comes back", async () => {
    const url = await serve((socket, count) => {
      begin(socket);
      if (count === 1) socket.close(4999);
    });
    const { client, states } = follow(url);
    await until(() => states.some((state) => state.phase === "reconnecting"));
    await until(() => client.state.phase === "live");
    expect(states.find((state) => state.phase === "reconnecting")?.reason).toBe("connection lost");
  });

  it("a bye counts more than what becomes of the connection after it", async () => {
    const url = await serve((socket) => {
      say(socket, welcome(), bye(4403, "nothing granted"));
      setTimeout(() => socket.terminate(), 20);
    });
    const { client } = follow(url);
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toBe("nothing granted");
  });
});

describe("an answer that is no session", () => {
  for (const status of [401, 403, 429, 503]) {
    it(`HTTP ${status}: comes back, and says which`, async () => {
      const { states, client } = follow(await refuse(status));
      await until(() => states.filter((state) => state.phase === "reconnecting").length >= 3);
      expect(client.state.reason).toContain(String(status));
    });
  }

  it("nobody there: comes back, and says so", async () => {
    const { client } = follow("ws://127.0.0.1:1/ws");
    await until(() => client.state.phase === "reconnecting");
    expect(client.state.reason).toContain("ECONNREFUSED");
  });

  it("another version: gives up", async () => {
    const { client } = follow(await serve((socket) => say(socket, welcome({ protocol: "tickertape.v2" }))));
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toBe("the relay speaks tickertape.v2; this client speaks tickertape.v1");
  });

  it("something else than JSON: comes back, and says so", async () => {
    const { client } = follow(await serve((socket) => socket.send("hello")));
    await until(() => client.state.phase === "reconnecting");
    expect(client.state.reason).toBe("the relay sent invalid JSON");
  });

  it("no address, no protocol of ours, no WebSocket: gives up", async () => {
    for (const url of ["nowhere", "ftp://relay.example/ws"]) {
      const { client } = follow(url);
      await until(() => client.state.phase === "closed");
      expect(client.state.reason).toMatch(/\S/);
    }
    if (globalThis.WebSocket) return;
    const client = connect("ws://127.0.0.1:1/ws", { subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toBe("no WebSocket implementation found: set the WebSocket option");
  });
});

describe("in between", () => {
  it("messages of types that it does not know, and what is no message, are passed over", async () => {
    const { client } = follow(
      await serve((socket) => {
        begin(socket);
        socket.send("null");
        socket.send("[]");
        say(socket, { type: "news", text: "of a later version" }, {}, events("e-2", 2));
      }),
    );
    const seqs: number[] = [];
    client.on(">", (event) => seqs.push(event.seq));
    await until(() => seqs.length === 1);
    expect(client.state.phase).toBe("live");
  });

  it("a proxy that cuts idle connections costs nothing but a return to its place", async () => {
    const asked: string[] = [];
    const url = await serve((socket, count, path) => {
      asked.push(new URLSearchParams(path.split("?")[1]).get("cursor") ?? "");
      say(socket, welcome(), subscribed(`e-${count}`, count > 1), events(`e-${count + 1}`, count + 1));
      if (count < 4) setTimeout(() => socket.terminate(), 20);
    });
    const { client } = follow(url);
    const seqs: number[] = [];
    client.on(">", (event) => seqs.push(event.seq));
    await until(() => seqs.length === 4);
    expect(seqs).toEqual([2, 3, 4, 5]);
    expect(asked).toEqual(["", "e-2", "e-3", "e-4"]);
  });

  it("a handler that throws hides no event from the others", async () => {
    const heard: unknown[] = [];
    const before = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    process.on("uncaughtException", (error) => heard.push(error.message));
    ends.push(() => {
      process.removeAllListeners("uncaughtException");
      for (const listener of before) process.on("uncaughtException", listener);
    });
    const { client } = follow(
      await serve((socket) => {
        begin(socket);
        say(socket, events("e-3", 2, 3));
      }),
    );
    const seqs: number[] = [];
    client.on(">", () => {
      throw new Error("of the handler");
    });
    client.on(">", (event) => seqs.push(event.seq));
    await until(() => seqs.length === 2 && heard.length === 2);
    expect(heard).toEqual(["of the handler", "of the handler"]);
    expect(client.cursor).toBe("e-3");
  });
});
