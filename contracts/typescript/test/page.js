// Puts the dashboard together: one script and one style sheet of its many files, and its words into the page. What comes
// of it is kept in the repository, so that nothing has to be built to install or run a relay, and a page is there after
// few requests. With --check it writes nothing, and exits 1 when what is kept is not what the files make.

import { build } from "esbuild";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const page = join(home, "../../relay/dashboard");

const text = readFileSync(join(page, "index.html"), "utf8");
const { STRINGS } = await import(join(page, "strings.js"));

/** A text of the page by its path in strings.js, as HTML. */
function words(_, path) {
  const found = path.split(".").reduce((inside, name) => inside?.[name], STRINGS);
  if (typeof found !== "string") throw new Error(`index.html wants {{${path}}}, and strings.js has no such text`);
  return found.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;");
}

/** Where the files say that they find each other. */
const served = {
  name: "served",
  setup(builds) {
    builds.onResolve({ filter: /^\/assets\/client\// }, ({ path }) => ({ path: join(home, "dist", path.slice(15)) }));
    builds.onResolve({ filter: /^\/assets\// }, ({ path }) => ({ path: join(page, path.slice(8)) }));
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
  plugins: [served],
  write: false,
});
const html = text.replace(/<!--.*?-->\n/s, "").replace(/\{\{([\w.]+)\}\}/g, words);
mkdirSync(join(page, "built"), { recursive: true });
for (const { path, text } of [...outputFiles, { path: join(page, "built/index.html"), text: html }]) {
  let kept = "";
  try {
    kept = readFileSync(path, "utf8");
  } catch {
    // Never built.
  }
  if (kept === text) continue;
  if (process.argv.includes("--check")) {
    console.error(`${path.slice(page.length + 1)} is stale; run 'make dist'`);
    process.exitCode = 1;
  } else {
    writeFileSync(path, text);
  }
}
