// Builds the dashboard: bundles its scripts and style sheets, and fills the texts into the page. The result is committed,
// so that a relay installs without a build step and the page loads in few requests. With --check it writes nothing and
// exits with 1 if the result is stale.

import { build } from "esbuild";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const page = join(home, "../../relay/dashboard");

const text = readFileSync(join(page, "index.html"), "utf8");
const { STRINGS } = await import(join(page, "strings.js"));

/** Return a text of strings.js by its path, as HTML. */
function textOf(_, path) {
  const value = path.split(".").reduce((texts, name) => texts?.[name], STRINGS);
  if (typeof value !== "string") throw new Error(`index.html uses {{${path}}}, but strings.js has no such text`);
  return value.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;");
}

/** Resolve the URLs under which the relay serves the files. */
const resolveAssets = {
  name: "assets",
  setup(build) {
    build.onResolve({ filter: /^\/assets\/client\// }, ({ path }) => ({ path: join(home, "dist", path.slice(15)) }));
    build.onResolve({ filter: /^\/assets\// }, ({ path }) => ({ path: join(page, path.slice(8)) }));
  },
};

const { outputFiles } = await build({
  entryPoints: [join(page, "app.js"), join(page, "app.css")],
  outdir: join(page, "built"),
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  plugins: [resolveAssets],
  write: false,
});
const html = text.replace(/<!--.*?-->\n/s, "").replace(/\{\{([\w.]+)\}\}/g, textOf);
mkdirSync(join(page, "built"), { recursive: true });
for (const { path, text } of [...outputFiles, { path: join(page, "built/index.html"), text: html }]) {
  let current = "";
  try {
    current = readFileSync(path, "utf8");
  } catch {
    // It does not exist yet.
  }
  if (current === text) continue;
  if (process.argv.includes("--check")) {
    console.error(`${path.slice(page.length + 1)} is stale; run 'make dist'`);
    process.exitCode = 1;
  } else {
    writeFileSync(path, text);
  }
}
