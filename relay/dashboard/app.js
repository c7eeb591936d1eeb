/**
 * Entry point of the page: routes messages from the connection to the stores, and draws the stores once per frame.
 *
 * Invariants: an event is never drawn on arrival but in the next frame, so a thousand events a second cost at most
 * sixty redraws; a hidden page draws nothing and catches up when it becomes visible.
 */

import { Alarm } from "/assets/alarm.js";
import { showBadge } from "/assets/badge.js";
import { Components } from "/assets/components.js";
import { byId, element, setText } from "/assets/dom.js";
import { Gateways } from "/assets/gateways.js";
import { History } from "/assets/history.js";
import { Link } from "/assets/link.js";
import { LinkBar } from "/assets/linkbar.js";
import { LogPane } from "/assets/logpane.js";
import { Rate } from "/assets/rate.js";
import { statusMark } from "/assets/status.js";
import { initTheme } from "/assets/themebutton.js";
import { Tiles } from "/assets/tiles.js";
import { relayNow } from "/assets/relayclock.js";
import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

const TICK_MS = 1_000;
const DOWN = "UNHEALTHY";

/** Families of states, as snapshots name them. */
const GATEWAYS = "gateway.status";
const COMPONENTS = "system.health";

/** Return when the page was opened; computed each time, because the clock may be corrected later. */
const openedAt = () => relayNow() - performance.now();

const rate = new Rate();
const gateways = new Gateways();
const components = new Components(byId("components"), byId("component-list"));
const tiles = new Tiles(
  byId("tiles"),
  /** @type {HTMLSelectElement} */ (byId("group-by")),
  toggleGateway,
  draw,
);
let drawing = false;
/** Set while events are replayed: they count at their own time, not as a burst now. */
let replaying = false;
/** Set once the page has been live: events dropped from then on are a loss to its user. */
let wasLive = false;

const tab = window.tickertapeToken;

const historyPanel = new History(
  (key, items) => {
    gateways.addHistory(key, items);
    draw();
  },
  ({ key, id }) => {
    tiles.mark("");
    tiles.focus(key);
    if (panel.text === id) panel.narrow(id);
    draw();
  },
);

const alarm = new Alarm(
  (key) => {
    const gateway = gateways.get(key);
    if (gateway && historyPanel.key !== key) toggleGateway(gateway);
  },
  (text) => {
    panel.notice(text);
    draw();
  },
);

/** Open a gateway's history and filter the log by it; close both if they are open. */
function toggleGateway(gateway) {
  if (historyPanel.key === gateway.key) {
    historyPanel.close();
    return;
  }
  tiles.mark(gateway.key);
  historyPanel.open(gateway, relayNow());
  if (panel.text !== gateway.id) panel.narrow(gateway.id);
  draw();
}

const handlers = {
  onLink(state) {
    replaying = state.phase === "catching-up";
    wasLive ||= state.phase === "live";
    bar.setLink(state, relayNow());
    showBadge(gateways.down, bar.stale);
  },
  onWelcome(welcome) {
    bar.setRelay(welcome);
  },
  onStart() {
    gateways.startSession();
    components.startSession();
  },
  onSubscribed(cursor, subscription) {
    panel.subscribed(cursor, subscription);
  },
  onDenied() {
    panel.notice(STRINGS.link.denied);
    draw();
  },
  onEvents(items) {
    const now = relayNow();
    const lines = [];
    for (const item of items) {
      rate.add(item.event.level, replaying ? parseTime(item.event.timestamp, now) : now, now);
      if (dispatch(item, now)) lines.push(item);
    }
    panel.add(lines, now);
    draw();
  },
  onSnapshot(items, done, start, missing) {
    const now = relayNow();
    // After a long disconnect only the snapshot shows that a gateway went down meanwhile.
    const notDown = items.filter(({ subject }) => ![undefined, DOWN].includes(gateways.get(subject)?.status));
    // A snapshot that lacks states of a family does not show which of them no longer exist.
    const complete = (family) => (missing[family] ? -Infinity : start);
    gateways.snapshot(items, done, complete(GATEWAYS), now);
    for (const gateway of notDown.map(({ subject }) => gateways.get(subject))) {
      if (gateway?.status === DOWN) alarm.down(gateway, now);
    }
    components.snapshot(items, done, complete(COMPONENTS), now);
    if (done) notShown = missing;
    draw();
  },
  onGap(gap) {
    const now = relayNow();
    // A page that opens receives only the newest part of the past; the user can load the rest.
    const older = !wasLive && gap.reason === "slow";
    if (!older) bar.addGap(gap);
    // Events dropped during a replay are older than now, by an unknown amount.
    panel.gap(older ? { ...gap, reason: "older" } : gap, replaying ? NaN : now);
    draw();
  },
  onUpstream(upstream) {
    bar.setUpstream(upstream, relayNow());
    showBadge(gateways.down, bar.stale);
  },
  onToken(token) {
    bar.setToken(token, relayNow());
  },
  onEpoch() {
    panel.startEpoch();
    gateways.forgetSequences();
    components.forgetSequences();
    historyPanel.reload();
  },
};

const link = new Link(handlers, tab);
const panel = new LogPane(draw, (subscription) => link.subscribe(subscription));

const bar = new LinkBar(
  () => link.connect(),
  (token) => link.authenticate(token),
  () => {
    // Reload, because everything the token granted access to has to leave the page.
    tab.forget();
    location.reload();
  },
  tab.wasInQuery(),
);
tab.onNewToken = (token) => link.authenticate(token);

/** Pass an event to its store. Returns whether it gets a line in the log: a healthy heartbeat does not. */
function dispatch(item, now) {
  historyPanel.handleEvent(item);
  switch (item.event.event_type) {
    case "gateway_status_change":
      applyStatus(item, now);
      return true;
    case "system_health":
      return components.apply(item, now);
    default:
      return true;
  }
}

function applyStatus(item, now) {
  const before = gateways.get(item.subject);
  gateways.apply(item, now);
  const after = gateways.get(item.subject);
  if (after?.status !== DOWN || before?.status === DOWN) return;
  // Raise an alarm for what happened during a disconnect, but not for what happened before the page was opened.
  if (!replaying || parseTime(item.event.timestamp, 0) >= openedAt()) alarm.down(after, now);
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const now = relayNow();
    if (tiles.show(gateways, now)) showSummary();
    historyPanel.show(gateways.get(historyPanel.key), now);
    showBadge(gateways.down, bar.stale);
    panel.draw();
  });
}

/** Number of states that the last snapshot lacked, by family. @type {Record<string, number>} */
let notShown = {};

/** Show how many states are not shown: those that the relay lacks, and those that this page has dropped. */
function showMissing(id, family, dropped) {
  const number = (notShown[family] ?? 0) + dropped;
  const note = byId(id);
  note.hidden = number === 0;
  setText(note, number === 0 ? "" : STRINGS.missing.note(number));
}

let summary = "";

function showSummary() {
  const counts = gateways.counts();
  const key = JSON.stringify(counts);
  if (key === summary) return;
  summary = key;
  const { size } = gateways;
  setText(byId("gateway-count"), size > 0 ? String(size) : "");
  byId("tiles-empty").hidden = size > 0;
  byId("summary").replaceChildren(
    ...counts.map(({ status, number }) => {
      const mark = statusMark();
      mark.set(status);
      mark.root.lastElementChild.before(element("b", "number", String(number)));
      return element("li", "", mark.root);
    }),
  );
}

function tick() {
  const now = relayNow();
  bar.tick(now);
  // Not in an animation frame: hidden pages get none, and the title is all that is visible of them.
  showBadge(gateways.down, bar.stale);
  bar.setRate(rate, now);
  tiles.tick(now);
  historyPanel.tick(now);
  components.tick(now);
  showMissing("gateways-missing", GATEWAYS, gateways.dropped);
  showMissing("components-missing", COMPONENTS, components.dropped);
  draw();
}

byId("tiles").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !historyPanel.key) return;
  event.stopPropagation();
  historyPanel.close();
});
byId("feed").addEventListener("scroll", draw, { passive: true });
for (const type of ["input", "change", "click", "keydown"]) document.addEventListener(type, draw);
initTheme();
setInterval(tick, TICK_MS);
tick();
if (tab.wasInQuery()) panel.notice(STRINGS.token.inUrl);
link.connect();
