import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/*.test.ts"],
    // Two at a time: each of some has a relay and a NATS server of its own.
    pool: "forks",
    poolOptions: { forks: { minForks: 1, maxForks: 2, execArgv: ["--expose-gc"] } },
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
