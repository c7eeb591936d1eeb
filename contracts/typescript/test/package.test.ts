/** Packed npm package: installed, imported, compiled against and bundled. */

import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const HOME = fileURLToPath(new URL("..", import.meta.url));
const MODULES = join(HOME, "node_modules");
const consumer = mkdtempSync(join(tmpdir(), "tickertape-consumer-"));

/** Run a command asynchronously: vitest kills a worker that blocks for a minute. */
async function run(command: string, args: string[], cwd: string): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args, { cwd, timeout: 240_000 });
  return stdout;
}

beforeAll(async () => {
  const [packed] = JSON.parse(await run("npm", ["pack", "--json", "--pack-destination", consumer], HOME)) as [
    { filename: string },
  ];
  writeFileSync(join(consumer, "package.json"), '{"name":"consumer","private":true,"type":"module"}');
  await run(
    "npm",
    ["install", "--offline", "--no-audit", "--no-fund", "--omit=peer", `./${packed.filename}`],
    consumer,
  );
  // The other dependencies of the consumer.
  mkdirSync(join(consumer, "node_modules/@types"), { recursive: true });
  for (const name of ["ws", "react", "csstype", "@types/ws", "@types/react", "@types/node", "undici-types"]) {
    symlinkSync(join(MODULES, name), join(consumer, "node_modules", name));
  }
});
afterAll(() => rmSync(consumer, { recursive: true, force: true }));

/** Return the compressed size of a bundle in bytes. */
async function size(contents: string, external: string[] = []): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: consumer },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external,
  });
  return gzipSync(outputFiles[0]?.contents ?? "", { level: 9 }).length;
}

describe("the package", () => {
  it("contains only the compiled files and the metadata", async () => {
    const listed = JSON.parse(await run("npm", ["pack", "--json", "--dry-run"], HOME)) as [
      { files: { path: string }[] },
    ];
    const names = listed[0].files.map((file) => file.path);
    expect(names.filter((name) => !/^dist\/[a-z]+\.(js|d\.ts)$/.test(name)).sort()).toEqual([
      "LICENSE",
      "README.md",
      "package.json",
    ]);
    const manifest = JSON.parse(readFileSync(join(HOME, "package.json"), "utf8")) as Record<string, unknown>;
    expect(manifest["dependencies"]).toBeUndefined();
  });

  it("can be imported in Node", async () => {
    const script = `
      import * as tickertape from "tickertape";
      import * as react from "tickertape/react";
      console.log(JSON.stringify([Object.keys(tickertape), Object.keys(react)]));`;
    const [names, hooks] = JSON.parse(
      await run("node", ["--input-type=module", "-e", script], consumer),
    ) as string[][];
    expect(names).toEqual(
      expect.arrayContaining(["connect", "sessionCursors", "isKnownEvent", "CLOSE_CODES"]),
    );
    expect(hooks?.sort()).toEqual([
      "TickertapeProvider",
      "useEvents",
      "useGateways",
      "useLogs",
      "useTickertape",
    ]);
  });

  it("keeps the 'use client' directive for Next.js", () => {
    expect(readFileSync(join(consumer, "node_modules/tickertape/dist/react.js"), "utf8")).toMatch(
      /^"use client";/,
    );
  });

  for (const [module, moduleResolution] of [
    ["ESNext", "bundler"],
    ["Node16", "node16"],
  ] as const) {
    it(`compiles with moduleResolution ${moduleResolution}`, async () => {
      const text = `
        import { connect, type TickertapeEvent } from "tickertape";
        import { useGateways } from "tickertape/react";
        import { WebSocket } from "ws";
        declare module "tickertape" { interface EventTypes { mine: { event_type: "mine"; price: number } } }
        export const describe = (event: TickertapeEvent): string =>
          event.event_type === "system_log" ? event.message
          : event.event_type === "mine" ? event.price.toFixed() : event.event_type;
        const client = connect("ws://relay.example/ws", { WebSocket, token: async () => "a.b.c" });
        client.on("log.>", ({ event }) => describe(event));
        export const first = (): string | undefined => useGateways()[0]?.event.gateway_id;`;
      writeFileSync(join(consumer, "use.ts"), text);
      const strict = {
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: true,
        noEmit: true,
        types: [],
      };
      const compilerOptions = { module, moduleResolution, target: "ES2022", ...strict };
      const file = join(consumer, "tsconfig.json");
      writeFileSync(file, JSON.stringify({ compilerOptions, files: ["use.ts"] }));
      expect(await run("node", [join(MODULES, "typescript/bin/tsc"), "-p", file], consumer)).toBe("");
    });
  }

  it("lets the process exit once the client is closed, even while it reconnects", async () => {
    const script = `
      import { WebSocket, WebSocketServer } from "ws";
      import { connect } from "tickertape";
      const unreachable = connect("ws://127.0.0.1:1/ws", { WebSocket, subjects: [">"] });
      unreachable.onState((state) => state.phase === "reconnecting" && unreachable.close());
      const server = new WebSocketServer({ port: 0 }, () => {
        const client = connect("ws://127.0.0.1:" + server.address().port, { WebSocket, subjects: [">"] });
        client.onMessage((message) => { client.close(); server.close(); });
        const unused = connect("ws://127.0.0.1:" + server.address().port, { WebSocket, subjects: [">"] });
        unused.close();
      });
      server.on("connection", (socket) => socket.send(JSON.stringify(
        { type: "welcome", protocol: "tickertape.v1", heartbeat_ms: 15000 })));`;
    await run("node", ["--input-type=module", "-e", script], consumer);
  });

  it("is at most 6 KB for the client, compressed", async () => {
    const client = await size('export { connect, sessionCursors } from "tickertape"');
    const hooks = await size('export * from "tickertape/react"', ["react"]);
    console.log(`client ${client} bytes, client and hooks ${hooks} bytes`);
    expect(client).toBeLessThanOrEqual(6_000);
    expect(hooks).toBeLessThanOrEqual(7_500);
  });

  it("contains the expression that Next.js replaces, and works without process", async () => {
    const bundle = async (define: Record<string, string>): Promise<string> => {
      const stdin = { contents: 'export * from "tickertape/react"', resolveDir: consumer };
      const { outputFiles } = await build({
        stdin,
        bundle: true,
        write: false,
        format: "esm",
        external: ["react"],
        define,
      });
      return outputFiles[0]?.text ?? "";
    };
    const replaced = await bundle({ "process.env.NEXT_PUBLIC_WS_URL": '"wss://relay.example/ws"' });
    expect(replaced).toContain('return "wss://relay.example/ws"');
    expect(replaced).not.toContain("process.env");
  });
});
