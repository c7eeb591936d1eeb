// Copies the third-party files of the dashboard from the locked packages to where the relay serves them, because the page
// loads them without a build step. With --check it writes nothing and exits with 1 if a copy differs.

import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const vendor = join(home, "../../relay/dashboard/vendor");
const check = process.argv.includes("--check");

/** uPlot has no minified module; its minified script is half of the module's size. */
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
  const expected = locked[`node_modules/${name}`]?.version;
  if (version !== expected) faults.push(`node_modules has ${name} ${version}, but the lock file ${expected}; run 'npm ci'`);
}

if (!check) mkdirSync(vendor, { recursive: true });
for (const [name, source] of Object.entries(files)) {
  const [from, to] = [join(home, "node_modules", source), join(vendor, name)];
  if (!check && faults.length === 0) copyFileSync(from, to);
  const same = existsSync(to) && readFileSync(to).equals(readFileSync(from));
  if (!same) faults.push(`vendor/${name} of the dashboard differs from ${source}; run 'npm run vendor'`);
}
for (const name of existsSync(vendor) ? readdirSync(vendor) : []) {
  if (!(name in files)) faults.push(`vendor/${name} of the dashboard comes from none of the packages; remove it`);
}

for (const fault of faults) console.error(fault);
process.exitCode = faults.length > 0 ? 1 : 0;
