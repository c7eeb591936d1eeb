/** Patterns: which subjects they select, and what is asked for on behalf of many. */

import { describe, expect, it } from "vitest";

import { covers, isPattern, union } from "../src/patterns.js";

describe("a pattern", () => {
  it("selects as NATS has it", () => {
    const selected: [pattern: string, subject: string, is: boolean][] = [
      ["log.>", "log.info.x", true],
      ["log.>", "log", false],
      ["log.*", "log.info.x", false],
      ["log.*.x", "log.info.x", true],
      [">", "log", true],
      ["*", "log", true],
      ["log.info.x", "log.info.x", true],
      ["log.info.x", "log.info.y", false],
    ];
    for (const [pattern, subject, is] of selected) expect(covers(pattern, subject), pattern).toBe(is);
  });

  it("covers another when it selects all that the other does", () => {
    expect(covers("log.>", "log.*.x")).toBe(true);
    expect(covers("log.*", "log.>")).toBe(false);
    expect(covers("log.*.x", "log.info.*")).toBe(false);
    expect(covers("log.*", "log.*")).toBe(true);
  });

  it("is told from what is none", () => {
    for (const text of [">", "*", "log.>", "log.*.x", "gateway.status.ctp.a=2Eb"])
      expect(isPattern(text)).toBe(true);
    for (const text of ["", ".", "log.", ".log", "log..x", "log.>.x", "lo*", "log.a b", "log.>>"]) {
      expect(isPattern(text)).toBe(false);
    }
  });
});

describe("the union", () => {
  it("has the least patterns, in an order of its own", () => {
    expect(union(["log.info.x", "log.>", "gateway.>", "log.>"])).toEqual(["gateway.>", "log.>"]);
    expect(union([])).toEqual([]);
  });

  it("is wider where the patterns are too many or too long, and as little as it takes", () => {
    const gateways = Array.from({ length: 1_000 }, (_, n) => `gateway.status.ctp.g${n}`);
    expect(union([...gateways, "log.error.x"])).toEqual(["gateway.status.ctp.>", "log.error.x"]);
    const long = Array.from({ length: 40 }, (_, n) => `log.error.${"x".repeat(100)}${n}`);
    expect(union(long)).toEqual(["log.error.>"]);
    const wild = Array.from({ length: 100 }, (_, n) => `a${n}.b.c.d`);
    expect(union(wild)).toEqual([">"]);
    const all = [...gateways, ...long, "system.health.*"];
    const wide = union(all);
    for (const pattern of all) expect(wide.some((one) => covers(one, pattern))).toBe(true);
  });
});
