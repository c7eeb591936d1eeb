import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

// This app is a project of its own, whatever lock files lie above it.
const root = dirname(fileURLToPath(import.meta.url));

export default { outputFileTracingRoot: root, turbopack: { root } };
