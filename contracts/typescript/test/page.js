// Puts the dashboard together: one script and one style sheet of its many files, which are kept in the repository, so that
// nothing has to be built to install or run a relay, and a page is there after few requests. With --check it writes
// nothing, and exits 1 when what is kept is not what the files make.

import { build } from "esbuild";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const page = join(home, "../../relay/dashboard");

/** Paths as a relay serves them, so that the page also runs from its files as they are. */
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
mkdirSync(join(page, "built"), { recursive: true });
for (const { path, text } of outputFiles) {
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
