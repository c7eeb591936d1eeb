/** Reactions of the client to each way in which a server can close or reject a connection. */

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

/** Start a WebSocket server; `onConnection` gets each socket with its number, from 1. */
async function serve(onConnection: (socket: WebSocket, count: number, url: string) => void): Promise<string> {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  let count = 0;
  server.on("connection", (socket, request) => onConnection(socket, ++count, request.url ?? ""));
  await new Promise((resolve) => server.once("listening", resolve));
  ends.push(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
}

/** Start an HTTP server that rejects every WebSocket handshake. */
async function reject(status: number): Promise<string> {
  const server: Server = createServer((_, response) => response.end());
  server.on("upgrade", (_, socket) => socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => server.close());
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
}

function connectClient(url: string, options: Options = {}): { client: Client; states: State[] } {
  const client = connect(url, { WebSocket, subjects: [">"], ...options });
  ends.push(() => client.close());
  const states: State[] = [];
  client.onState((state) => states.push(state));
  return { client, states };
}

const send = (socket: WebSocket, ...messages: object[]): void =>
  messages.forEach((message) => socket.send(JSON.stringify(message)));

const startSession = (socket: WebSocket): void =>
  send(socket, welcome(), subscribed("e-1"), { type: "snapshot", events: [], done: true });

const jwt = (name: number): string => `h.${name}.s`;

describe("each close code of the table", () => {
  for (const [code, rule] of Object.entries(CLOSE_CODES)) {
    const returns = rule.reconnect !== "never";
    it(`${code} ${rule.name}: ${rule.reconnect}`, async () => {
      const given: string[] = [];
      const url = await serve((socket, count) => {
        startSession(socket);
        if (count > 1) return;
        send(socket, bye(Number(code), `because of ${code}`, code === "1001" ? 40 : null));
        socket.close(Number(code), `because of ${code}`);
      });
      const token = (): string => {
        given.push(jwt(given.length));
        return given.at(-1) ?? "";
      };
      const { client, states } = connectClient(url, { token });
      await until(() => states.some((state) => state.reason === `because of ${code}`));
      const [reported] = states.filter((state) => state.reason === `because of ${code}`);
      expect(reported?.phase).toBe(returns ? "reconnecting" : "closed");
      if (returns) await until(() => client.state.phase === "live");
      else await new Promise((resolve) => setTimeout(resolve, 20));
      expect(client.state.phase).toBe(returns ? "live" : "closed");
      expect(given.length).toBe(rule.reconnect === "new_token" ? 2 : 1);
    });
  }

  it("an unknown code counts as a lost connection and is retried", async () => {
    const url = await serve((socket, count) => {
      startSession(socket);
      if (count === 1) socket.close(4999);
    });
    const { client, states } = connectClient(url);
    await until(() => states.some((state) => state.phase === "reconnecting"));
    await until(() => client.state.phase === "live");
    expect(states.find((state) => state.phase === "reconnecting")?.reason).toBe("connection lost");
  });

  it("a bye takes precedence over how the connection is closed after it", async () => {
    const url = await serve((socket) => {
      send(socket, welcome(), bye(4403, "nothing granted"));
      setTimeout(() => socket.terminate(), 20);
    });
    const { client } = connectClient(url);
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toBe("nothing granted");
  });
});

describe("a failed handshake", () => {
  for (const status of [401, 403, 429, 503]) {
    it(`HTTP ${status}: is retried, and the reason contains the status`, async () => {
      const { states, client } = connectClient(await reject(status));
      await until(() => states.filter((state) => state.phase === "reconnecting").length >= 3);
      expect(client.state.reason).toContain(String(status));
    });
  }

  it("connection refused: is retried, and reported as the reason", async () => {
    const { client } = connectClient("ws://127.0.0.1:1/ws");
    await until(() => client.state.phase === "reconnecting");
    expect(client.state.reason).toContain("ECONNREFUSED");
  });

  it("another protocol version: the client gives up", async () => {
    const { client } = connectClient(await serve((socket) => send(socket, welcome({ protocol: "tickertape.v2" }))));
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toBe("the relay speaks tickertape.v2; this client speaks tickertape.v1");
  });

  it("invalid JSON: is retried, and reported as the reason", async () => {
    const { client } = connectClient(await serve((socket) => socket.send("hello")));
    await until(() => client.state.phase === "reconnecting");
    expect(client.state.reason).toBe("the relay sent invalid JSON");
  });

  it("an invalid URL, another scheme, or no WebSocket: the client gives up", async () => {
    for (const url of ["nowhere", "ftp://relay.example/ws"]) {
      const { client } = connectClient(url);
      await until(() => client.state.phase === "closed");
      expect(client.state.reason).toMatch(/\S/);
    }
    if (globalThis.WebSocket) return;
    const client = connect("ws://127.0.0.1:1/ws", { subjects: [">"] });
    await until(() => client.state.phase === "closed");
    expect(client.state.reason).toBe("no WebSocket implementation found: set the WebSocket option");
  });
});

describe("during a session", () => {
  it("messages of unknown types, and JSON that is no message, are ignored", async () => {
    const { client } = connectClient(
      await serve((socket) => {
        startSession(socket);
        socket.send("null");
        socket.send("[]");
        send(socket, { type: "news", text: "from a later version" }, {}, events("e-2", 2));
      }),
    );
    const seqs: number[] = [];
    client.on(">", (event) => seqs.push(event.seq));
    await until(() => seqs.length === 1);
    expect(client.state.phase).toBe("live");
  });

  it("connections cut by a proxy are resumed from the cursor", async () => {
    const cursors: string[] = [];
    const url = await serve((socket, count, path) => {
      cursors.push(new URLSearchParams(path.split("?")[1]).get("cursor") ?? "");
      send(socket, welcome(), subscribed(`e-${count}`, count > 1), events(`e-${count + 1}`, count + 1));
      if (count < 4) setTimeout(() => socket.terminate(), 20);
    });
    const { client } = connectClient(url);
    const seqs: number[] = [];
    client.on(">", (event) => seqs.push(event.seq));
    await until(() => seqs.length === 4);
    expect(seqs).toEqual([2, 3, 4, 5]);
    expect(cursors).toEqual(["", "e-2", "e-3", "e-4"]);
  });

  it("a handler that throws does not affect other handlers", async () => {
    const uncaught: unknown[] = [];
    const before = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    process.on("uncaughtException", (error) => uncaught.push(error.message));
    ends.push(() => {
      process.removeAllListeners("uncaughtException");
      for (const listener of before) process.on("uncaughtException", listener);
    });
    const { client } = connectClient(
      await serve((socket) => {
        startSession(socket);
        send(socket, events("e-3", 2, 3));
      }),
    );
    const seqs: number[] = [];
    client.on(">", () => {
      throw new Error("handler failed");
    });
    client.on(">", (event) => seqs.push(event.seq));
    await until(() => seqs.length === 2 && uncaught.length === 2);
    expect(uncaught).toEqual(["handler failed", "handler failed"]);
    expect(client.cursor).toBe("e-3");
  });
});
