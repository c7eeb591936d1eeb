// Compiles src into dist, which is committed because pages use it without a build step. With --check it writes nothing
// and exits with 1 if dist is stale.

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const dist = join(home, "dist");
const check = process.argv.includes("--check");
const folder = check ? mkdtempSync(join(tmpdir(), "tickertape-")) : dist;

try {
  if (!check) rmSync(dist, { recursive: true, force: true });
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  execFileSync(process.execPath, [tsc, "-p", home, "--outDir", folder], { stdio: "inherit" });
  const names = new Set([...readdirSync(folder), ...(existsSync(dist) ? readdirSync(dist) : [])]);
  const text = (file) => (existsSync(file) ? readFileSync(file, "utf8") : null);
  const stale = [...names].filter((name) => text(join(folder, name)) !== text(join(dist, name)));
  for (const name of stale) console.error(`dist/${name} is stale; run 'make dist'`);
  process.exitCode = stale.length > 0 ? 1 : 0;
} finally {
  if (check) rmSync(folder, { recursive: true, force: true });
}
