import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

// Set the root explicitly: Next.js would infer it from lock files in parent folders.
const root = dirname(fileURLToPath(import.meta.url));

export default {
  outputFileTracingRoot: root,
  // The app runs where it was built: tracing the files for a deployment would double the build time.
  outputFileTracingExcludes: { "next-server": ["**/*"] },
  turbopack: { root },
};
