/** Real relay, or a FastAPI host with a mounted feed, and a real NATS server, driven through relay_desk.py. */

import { spawn, type ChildProcessByStdio } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";

import type { Client, Received } from "../src/index.js";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

function python(): string {
  const own = `${ROOT}.venv/bin/python`;
  return process.env["TEST_PYTHON"] ?? (existsSync(own) ? own : "python3");
}

interface Reply {
  id: number;
  answer?: unknown;
  error?: string;
}

/** Controller of the relay_desk process: it starts, stops and kills relays, publishes events and mints tokens. */
export class Desk {
  url = "";
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  #count = 0;
  #ended = false;

  /** Start the process with a NATS server; `relay` starts the relay. */
  constructor() {
    this.#process = spawn(python(), ["-m", "tests.support.programs.relay_desk"], {
      cwd: ROOT,
      env: { ...process.env, PYTHONPATH: ROOT },
      stdio: ["pipe", "pipe", "inherit"],
    });
    createInterface(this.#process.stdout).on("line", (line) => {
      const reply = JSON.parse(line) as Reply;
      this.#waiting.get(reply.id)?.(reply);
      this.#waiting.delete(reply.id);
    });
    this.#process.on("exit", () => {
      this.#ended = true;
      for (const answer of this.#waiting.values()) answer({ id: 0, error: "the desk ended" });
    });
  }

  /** Run a command of the process, and return its result. */
  async do<T = null>(command: string, fields: Record<string, unknown> = {}): Promise<T> {
    const id = ++this.#count;
    if (this.#ended) throw new Error("the desk ended");
    const reply = await new Promise<Reply>((resolve) => {
      this.#waiting.set(id, resolve);
      this.#process.stdin.write(`${JSON.stringify({ id, do: command, ...fields })}\n`);
    });
    if (reply.error !== undefined) throw new Error(reply.error);
    return reply.answer as T;
  }

  /** Start a relay, replacing the current one. */
  async relay(options: { auth?: boolean; options?: string[] } = {}): Promise<void> {
    const { url } = await this.do<{ url: string }>("relay", {
      ...options,
      options: ["--client-rate", "0", ...(options.options ?? [])],
    });
    this.url = url;
  }

  /** Start a FastAPI application with a mounted feed instead of the relay, and return the URL of its `/health`. */
  async host(options: Record<string, unknown> = {}): Promise<string> {
    const started = await this.do<{ url: string; health: string }>("host", {
      options: { client_rate: 0, ...options },
    });
    this.url = started.url;
    return started.health;
  }

  /** Publish log lines, and return the sequences of the first and the last. */
  lines(count: number, fields: Record<string, unknown> = {}): Promise<[number, number]> {
    return this.do("lines", { count, ...fields });
  }

  /** Stop the process with everything it started. */
  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    await ended;
  }
}

/** Wait until a condition holds. */
export async function until(condition: () => boolean, what = String(condition), ms = 120_000): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Collect the events of a client from now on. */
export function collect(client: Client, pattern: string): Received[] {
  const events: Received[] = [];
  client.on(pattern, (event) => events.push(event));
  return events;
}

export const seqs = (events: Received[]): number[] =>
  events.filter(({ snapshot }) => !snapshot).map(({ seq }) => seq);
export const range = ([first, last]: [number, number]): number[] =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);
export const live = (client: Client): Promise<void> => until(() => client.state.phase === "live", "live");
