/** Subject patterns: matching, validation and union. */

import { describe, expect, it } from "vitest";

import { connect } from "../src/index.js";
import { covers, fitsUrl, isPattern, union } from "../src/patterns.js";

describe("a condition", () => {
  it("shares the URL with the patterns, which become wider where it takes their space", () => {
    const where = `event.text.contains("${"x".repeat(2_300)}")`;
    const patterns = Array.from({ length: 40 }, (_, n) => `log.info.source-${n}`);
    expect(fitsUrl(patterns)).toBe(true);
    expect(fitsUrl(patterns, where)).toBe(false);
    expect(union(patterns, where)).toEqual(["log.info.>"]);
  });

  it("is rejected immediately if it does not fit into a URL", () => {
    const where = `event.text == "${"\u00e9".repeat(500)}"`;
    expect(() => connect("ws://127.0.0.1:1/ws", { where })).toThrow(/2500 characters/);
  });
});

describe("a pattern", () => {
  it("matches like a NATS subscription", () => {
    const cases: [pattern: string, subject: string, matches: boolean][] = [
      ["log.>", "log.info.x", true],
      ["log.>", "log", false],
      ["log.*", "log.info.x", false],
      ["log.*.x", "log.info.x", true],
      [">", "log", true],
      ["*", "log", true],
      ["log.info.x", "log.info.x", true],
      ["log.info.x", "log.info.y", false],
    ];
    for (const [pattern, subject, matches] of cases) expect(covers(pattern, subject), pattern).toBe(matches);
  });

  it("covers another one if it selects all of its subjects", () => {
    expect(covers("log.>", "log.*.x")).toBe(true);
    expect(covers("log.*", "log.>")).toBe(false);
    expect(covers("log.*.x", "log.info.*")).toBe(false);
    expect(covers("log.*", "log.*")).toBe(true);
  });

  it("is distinguished from invalid text", () => {
    for (const text of [">", "*", "log.>", "log.*.x", "gateway.status.ctp.a=2Eb"])
      expect(isPattern(text)).toBe(true);
    for (const text of ["", ".", "log.", ".log", "log..x", "log.>.x", "lo*", "log.a b", "log.>>"]) {
      expect(isPattern(text)).toBe(false);
    }
  });
});

describe("the union", () => {
  it("is minimal and sorted", () => {
    expect(union(["log.info.x", "log.>", "gateway.>", "log.>"])).toEqual(["gateway.>", "log.>"]);
    expect(union([])).toEqual([]);
  });

  it("is widened only as far as needed if the patterns are too many or too long", () => {
    const gateways = Array.from({ length: 1_000 }, (_, n) => `gateway.status.ctp.g${n}`);
    expect(union([...gateways, "log.error.x"])).toEqual(["gateway.status.ctp.>", "log.error.x"]);
    const long = Array.from({ length: 40 }, (_, n) => `log.error.${"x".repeat(100)}${n}`);
    expect(union(long)).toEqual(["log.error.>"]);
    const wild = Array.from({ length: 100 }, (_, n) => `a${n}.b.c.d`);
    expect(union(wild)).toEqual([">"]);
    const all = [...gateways, ...long, "system.health.*"];
    const wide = union(all);
    for (const pattern of all) expect(wide.some((other) => covers(other, pattern))).toBe(true);
  });
});
