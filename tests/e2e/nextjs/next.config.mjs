import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

// This app is a project of its own, whatever lock files lie above it.
const root = dirname(fileURLToPath(import.meta.url));

export default {
  outputFileTracingRoot: root,
  // It runs where it was built: to look for what a copy elsewhere would need takes as long as all else of the build.
  outputFileTracingExcludes: { "next-server": ["**/*"] },
  turbopack: { root },
};
