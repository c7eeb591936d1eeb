// @vitest-environment happy-dom

/** React hooks in a simulated DOM, with fake sockets. */

import { act, createElement, Profiler, StrictMode, type ReactNode } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Options } from "../src/index.js";
import { TickertapeProvider, useEvents, useGateways, useLogs, useTickertape } from "../src/react.js";
import { events, FakeSocket, item, subscribed, welcome } from "./fake.js";

declare global {
  var IS_REACT_ACT_ENVIRONMENT: boolean;
}
globalThis.IS_REACT_ACT_ENVIRONMENT = true;

const options: Options = { WebSocket: FakeSocket };
let roots: Root[] = [];
let host: HTMLElement;
let commits = 0;
let frames: (() => void)[] = [];
let page = 0;

/** Unique URL per test, so that tests do not share a feed. */
let url = "";

const element = (children: ReactNode): ReactNode =>
  createElement(
    TickertapeProvider,
    { url, ...options },
    createElement(Profiler, { id: "p", onRender: () => commits++ }, children),
  );

async function render(children: ReactNode, root = createRoot(host)): Promise<Root> {
  if (!roots.includes(root)) roots.push(root);
  await act(async () => {
    root.render(element(children));
    await vi.advanceTimersByTimeAsync(0);
  });
  return root;
}

/** Run the callbacks of an animation frame. */
const frame = (): Promise<void> =>
  act(async () => {
    for (const run of frames.splice(0)) run();
    await Promise.resolve();
  });

function gateway(seq: number, id: string, current_status: string): object {
  const event = { event_type: "gateway_status_change", gateway_id: id, gateway_type: "ctp", current_status };
  return item(seq, `gateway.status.ctp.${id}`, event);
}

const Gateways = (): ReactNode =>
  useGateways()
    .map(({ event }) => `${event.gateway_id}:${event.current_status} `)
    .join("");
const Logs = ({ limit }: { limit: number }): ReactNode =>
  useLogs({ limit })
    .map((row) => (row.kind === "line" ? row.event.message : `${row.gap.dropped ?? "unknown"} missing`))
    .join(", ");
const Missing = (): ReactNode => `${useTickertape().truncated} not shown`;
const Phase = (): ReactNode => useTickertape().state.phase;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  vi.stubGlobal("requestAnimationFrame", (run: () => void) => frames.push(run));
  host = document.body.appendChild(document.createElement("div"));
  FakeSocket.all = [];
  frames = [];
  url = `ws://relay.example/${++page}`;
});
afterEach(async () => {
  await act(() => roots.forEach((root) => root.unmount()));
  await vi.advanceTimersByTimeAsync(300);
  // All components are unmounted: no socket, frame or timer may be left.
  expect(FakeSocket.all.filter((socket) => !socket.closed && socket.onclose)).toEqual([]);
  for (const run of frames.splice(0)) run();
  expect(vi.getTimerCount()).toBe(0);
  roots = [];
  host.remove();
  commits = 0;
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the hooks", () => {
  it("render once per frame, regardless of the number of events", async () => {
    await render([createElement(Logs, { key: 1, limit: 5 }), createElement(Gateways, { key: 2 })]);
    FakeSocket.last.startSession("e-1");
    await frame();
    const before = commits;
    for (let seq = 2; seq < 500; seq++) FakeSocket.last.receive(events(`e-${seq}`, seq));
    FakeSocket.last.receive({ type: "events", cursor: "e-500", events: [gateway(500, "main", "HEALTHY")] });
    expect(commits).toBe(before);
    await frame();
    expect(commits).toBe(before + 1);
    expect(host.textContent).toBe("line 495, line 496, line 497, line 498, line 499main:HEALTHY ");
    await frame();
    expect(commits).toBe(before + 1);
  });

  it("render at a fixed interval in a hidden tab", async () => {
    vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
    await render(createElement(Logs, { limit: 5 }));
    FakeSocket.last.startSession("e-1");
    FakeSocket.last.receive(events("e-2", 2));
    expect(frames.length).toBe(0);
    await act(() => vi.advanceTimersByTimeAsync(250));
    expect(host.textContent).toBe("line 2");
    vi.restoreAllMocks();
  });

  it("keep a bounded number of gateways: those that changed last", async () => {
    const Some = (): ReactNode => {
      const ids = useGateways().map(({ event }) => event.gateway_id);
      return `${ids.length} ${["g1", "g2", "g3", "new"].filter((id) => ids.includes(id)).join(" ")}`;
    };
    await render(createElement(Some));
    FakeSocket.last.startSession("e-1");
    for (let first = 1; first <= 100_000; first += 10_000) {
      const batch = Array.from({ length: 10_000 }, (_, n) => gateway(first + n, `g${first + n}`, "HEALTHY"));
      FakeSocket.last.receive({ type: "events", cursor: `e-${first}`, events: batch });
    }
    const last = [gateway(200_000, "g1", "DEGRADED"), gateway(200_001, "new", "HEALTHY")];
    FakeSocket.last.receive({ type: "events", cursor: "e-200001", events: last });
    await frame();
    expect(host.textContent).toBe("100000 g1 g3 new");
  });

  it("keep the latest status of each gateway and drop removed gateways", async () => {
    await render(createElement(Gateways));
    FakeSocket.last.receive(welcome(), {
      type: "subscribed",
      subjects: [">"],
      level: "DEBUG",
      mode: "live",
      interval_ms: 1,
      cursor: "e-9",
      resumed: false,
    });
    const snapshot = [gateway(3, "b", "HEALTHY"), gateway(4, "a", "DEGRADED"), gateway(5, "c", "HEALTHY")];
    FakeSocket.last.receive({ type: "snapshot", events: snapshot, done: true });
    const after = [gateway(10, "b", "UNHEALTHY"), gateway(11, "c", "REMOVED")];
    FakeSocket.last.receive({ type: "events", cursor: "e-11", events: after });
    // An older snapshot changes nothing.
    FakeSocket.last.receive({ type: "snapshot", events: snapshot.slice(0, 2), done: true });
    await frame();
    expect(host.textContent).toBe("a:DEGRADED b:UNHEALTHY ");
    // The stream was recreated: only its gateways remain.
    FakeSocket.last.receive({ type: "gap", from: "e-11", to: "f-0", dropped: null, by: {}, reason: "reset" });
    FakeSocket.last.receive({ type: "snapshot", events: [gateway(1, "b", "HEALTHY")], done: true });
    await frame();
    expect(host.textContent).toBe("b:HEALTHY ");
  });

  it("show how many states the last snapshot lacked", async () => {
    await render(createElement("p", null, createElement(Gateways), createElement(Missing)));
    FakeSocket.last.receive(welcome(), subscribed("e-1"), { type: "snapshot", events: [], done: false });
    const truncated = { truncated: 12, truncated_by: { "system.health": 12 } };
    FakeSocket.last.receive({ type: "snapshot", events: [], done: true, ...truncated });
    await frame();
    expect(host.textContent).toBe("12 not shown");
    FakeSocket.last.receive({ type: "snapshot", events: [], done: true });
    await frame();
    expect(host.textContent).toBe("0 not shown");
  });

  it("show gaps between the lines, and no more rows than the limit", async () => {
    await render(createElement(Logs, { limit: 3 }));
    FakeSocket.last.startSession("e-1");
    const gap = { type: "gap", from: "e-3", to: "e-9", reason: "rate" };
    FakeSocket.last.receive(events("e-3", 2, 3), { ...gap, dropped: 6, by: { "log.info": 6 } });
    FakeSocket.last.receive({ ...gap, dropped: 2, by: { "gateway.status": 2 } }, events("e-10", 10));
    await frame();
    expect(host.textContent).toBe("line 3, 6 missing, line 10");
  });

  it("share one connection and return its state", async () => {
    const received: number[] = [];
    const Listener = (): ReactNode => {
      useEvents("log.>", ({ seq }) => received.push(seq));
      return null;
    };
    await render([Gateways, Phase, Listener].map((component, key) => createElement(component, { key })));
    expect(FakeSocket.all.length).toBe(1);
    expect(FakeSocket.last.query).toEqual({ subjects: "gateway.status.>,log.>" });
    await frame();
    expect(host.textContent).toBe("connecting");
    FakeSocket.last.startSession();
    FakeSocket.last.receive(events("e-7", 7));
    await frame();
    expect(host.textContent).toBe("live");
    expect(received).toEqual([7]);
  });

  it("use one connection across StrictMode and remounts, and close it in the end", async () => {
    const root = await render(createElement(StrictMode, null, createElement(Gateways)));
    FakeSocket.last.startSession();
    await render(null, root);
    await render(createElement(StrictMode, null, createElement(Gateways), createElement(Phase)), root);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(FakeSocket.all.length).toBe(1);
    expect(FakeSocket.last.closed).toBe(false);
    await render(null, root);
    await vi.advanceTimersByTimeAsync(300);
    expect(FakeSocket.last.closed).toBe(true);
  });

  it("use the token function of the latest render", async () => {
    const users: string[] = [];
    const Page = ({ user }: { user: string }): ReactNode => {
      const token = (): string => {
        users.push(user);
        return `h.${user}.s`;
      };
      return useTickertape(url, { ...options, subjects: [">"], token }).state.phase;
    };
    const root = await render(createElement(Page, { user: "one" }));
    await render(createElement(Page, { user: "two" }), root);
    FakeSocket.last.disconnect(4401);
    await vi.advanceTimersByTimeAsync(500);
    expect(users).toEqual(["one", "two"]);
  });
});

describe("on a server", () => {
  it("render the initial state, open no connection, and hydrate without errors", async () => {
    const page = element([Gateways, Phase].map((component, key) => createElement(component, { key })));
    vi.stubGlobal("window", undefined);
    const html = renderToString(page);
    vi.unstubAllGlobals();
    vi.stubGlobal("requestAnimationFrame", (run: () => void) => frames.push(run));
    expect(html).toBe("connecting");
    expect(FakeSocket.all).toEqual([]);
    host.innerHTML = html;
    const consoleError = vi.spyOn(console, "error");
    await act(async () => {
      roots.push(hydrateRoot(host, page));
      await vi.advanceTimersByTimeAsync(0);
    });
    FakeSocket.last.startSession();
    FakeSocket.last.receive({ type: "events", cursor: "e-2", events: [gateway(2, "main", "HEALTHY")] });
    await frame();
    expect(host.textContent).toBe("main:HEALTHY live");
    expect(consoleError).not.toHaveBeenCalled();
  });
});

it("the URL defaults to NEXT_PUBLIC_WS_URL, and then to /ws on the page's origin", async () => {
  const Page = (): ReactNode => useTickertape(undefined, { ...options, subjects: [">"] }).state.phase;
  vi.stubEnv("NEXT_PUBLIC_WS_URL", "wss://configured.example/ws");
  const show = async (): Promise<string> => {
    const root = createRoot(host);
    roots.push(root);
    await act(async () => {
      root.render(createElement(Page));
      await vi.advanceTimersByTimeAsync(0);
    });
    await act(() => root.unmount());
    await vi.advanceTimersByTimeAsync(300);
    return FakeSocket.last.url.replace(/\?.*/, "");
  };
  expect(await show()).toBe("wss://configured.example/ws");
  vi.unstubAllEnvs();
  window.location.href = "https://page.example/deep/inside";
  expect(await show()).toBe("wss://page.example/ws");
});
