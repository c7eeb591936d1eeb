// Copies what the dashboard uses of other packages, as the lock file has them, to where the relay serves it from: the
// page has no build step. With --check it writes nothing, and exits 1 when a copy is not what is locked.

import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const vendor = join(home, "../../relay/dashboard/vendor");
const check = process.argv.includes("--check");

/** The package has no minified module: its minified script is half of the module's size. */
const files = {
  "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
  "uPlot.min.css": "uplot/dist/uPlot.min.css",
  "uPlot.LICENSE.txt": "uplot/LICENSE",
};

/** @type {Record<string, {version: string}>} */
const locked = JSON.parse(readFileSync(join(home, "package-lock.json"), "utf8")).packages;
/** @type {string[]} */
const faults = [];

for (const name of new Set(Object.values(files).map((file) => file.split("/", 1)[0]))) {
  const { version } = JSON.parse(readFileSync(join(home, "node_modules", `${name}`, "package.json"), "utf8"));
  const wanted = locked[`node_modules/${name}`]?.version;
  if (version !== wanted) faults.push(`node_modules has ${name} ${version}, the lock file ${wanted}; run 'npm ci'`);
}

if (!check) mkdirSync(vendor, { recursive: true });
for (const [name, source] of Object.entries(files)) {
  const [from, to] = [join(home, "node_modules", source), join(vendor, name)];
  if (!check && faults.length === 0) copyFileSync(from, to);
  const same = existsSync(to) && readFileSync(to).equals(readFileSync(from));
  if (!same) faults.push(`${name} of the dashboard differs from ${source}; run 'npm run vendor'`);
}
for (const name of existsSync(vendor) ? readdirSync(vendor) : []) {
  if (!(name in files)) faults.push(`${name} beside the dashboard is in none of the packages; remove it`);
}

for (const fault of faults) console.error(fault);
process.exitCode = faults.length > 0 ? 1 : 0;
