/** A real relay, or a host with a feed mounted, and a real NATS server; see tests/support/programs/relay_desk.py. */

import { spawn, type ChildProcessByStdio } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

function python(): string {
  const own = `${ROOT}.venv/bin/python`;
  return process.env["TICKERTAPE_PYTHON"] ?? (existsSync(own) ? own : "python3");
}

interface Said {
  id: number;
  answer?: unknown;
  error?: string;
}

/** Starts, stops and kills; publishes and mints. */
export class Desk {
  url = "";
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #waiting = new Map<number, (said: Said) => void>();
  #count = 0;
  #ended = false;

  /** Open one; the relay comes with `relay`. */
  constructor() {
    this.#process = spawn(python(), ["-m", "tests.support.programs.relay_desk"], {
      cwd: ROOT,
      env: { ...process.env, PYTHONPATH: ROOT },
      stdio: ["pipe", "pipe", "inherit"],
    });
    createInterface(this.#process.stdout).on("line", (line) => {
      const said = JSON.parse(line) as Said;
      this.#waiting.get(said.id)?.(said);
      this.#waiting.delete(said.id);
    });
    this.#process.on("exit", () => {
      this.#ended = true;
      for (const answer of this.#waiting.values()) answer({ id: 0, error: "the desk ended" });
    });
  }

  /** Have a wish granted. */
  async do<T = null>(wish: string, fields: Record<string, unknown> = {}): Promise<T> {
    const id = ++this.#count;
    if (this.#ended) throw new Error("the desk ended");
    const said = await new Promise<Said>((resolve) => {
      this.#waiting.set(id, resolve);
      this.#process.stdin.write(`${JSON.stringify({ id, do: wish, ...fields })}\n`);
    });
    if (said.error !== undefined) throw new Error(said.error);
    return said.answer as T;
  }

  /** Start a relay in place of the one that there is. */
  async relay(options: { auth?: boolean; options?: string[] } = {}): Promise<void> {
    const { url } = await this.do<{ url: string }>("relay", {
      ...options,
      options: ["--client-rate", "0", ...(options.options ?? [])],
    });
    this.url = url;
  }

  /** Start a FastAPI application with a feed mounted, in place of the relay; its own `/health`. */
  async host(options: Record<string, unknown> = {}): Promise<string> {
    const started = await this.do<{ url: string; health: string }>("host", {
      options: { client_rate: 0, ...options },
    });
    this.url = started.url;
    return started.health;
  }

  /** Publish lines; the sequences of the first and the last. */
  lines(count: number, fields: Record<string, unknown> = {}): Promise<[number, number]> {
    return this.do("lines", { count, ...fields });
  }

  /** End all of it. */
  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    await ended;
  }
}

/** Wait until something holds. */
export async function until(condition: () => boolean, what = String(condition), ms = 120_000): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
