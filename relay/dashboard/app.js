/**
 * The page, put together: what the connection brings goes to the stores, and once per frame the stores are drawn.
 *
 * Invariants: nothing is drawn when an event arrives, only in the next frame, so a thousand events a second cost
 * sixty drawings; a hidden page draws nothing and catches up when it is looked at.
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
import { beginTheme } from "/assets/themebutton.js";
import { Tiles } from "/assets/tiles.js";
import { present } from "/assets/present.js";
import { STRINGS } from "/assets/strings.js";
import { parseTime } from "/assets/times.js";

const TICK_MS = 1_000;
const DOWN = "UNHEALTHY";

/** When the page was opened; later than that the clock may turn out to be wrong. */
const opened = () => present() - performance.now();

const rate = new Rate();
const gateways = new Gateways();
const components = new Components(byId("components"), byId("component-list"));
const tiles = new Tiles(
  byId("tiles"),
  /** @type {HTMLSelectElement} */ (byId("group-by")),
  pick,
  draw,
);
let drawing = false;
/** What comes is of the past: it counts at its own time, not as a burst of now. */
let history = false;
/** The page has been at the present: what is passed over from then on is a loss to its reader. */
let current = false;

const tab = window.tickertapeToken;

const past = new History(
  () => tab.read(),
  (key, items) => {
    gateways.remember(key, items);
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
    if (gateway && past.key !== key) pick(gateway);
  },
  (text) => {
    panel.notice(text);
    draw();
  },
);

/** A tile was pressed: its history and its lines in the log, or back to all of it. */
function pick(gateway) {
  if (past.key === gateway.key) {
    past.close();
    return;
  }
  tiles.mark(gateway.key);
  past.open(gateway, present());
  if (panel.text !== gateway.id) panel.narrow(gateway.id);
  draw();
}

const handlers = {
  onLink(standing) {
    history = standing.phase === "catching-up";
    current ||= standing.phase === "live";
    bar.setLink(standing, present());
    showBadge(gateways.down, bar.stale);
  },
  onWelcome(welcome) {
    bar.setRelay(welcome);
  },
  onStart() {
    gateways.begin();
    components.begin();
  },
  onAsked(cursor, ask) {
    panel.asked(cursor, ask);
  },
  onDenied() {
    panel.notice(STRINGS.link.denied);
    draw();
  },
  onEvents(items) {
    const now = present();
    const lines = [];
    for (const item of items) {
      rate.add(item.event.level, history ? parseTime(item.event.timestamp, now) : now, now);
      if (take(item, now)) lines.push(item);
    }
    panel.add(lines, now);
    draw();
  },
  onSnapshot(items, done, start) {
    const now = present();
    // A loss may have been so long that only this tells what happened meanwhile.
    const well = items.filter(({ subject }) => ![undefined, DOWN].includes(gateways.get(subject)?.status));
    gateways.snapshot(items, done, start, now);
    for (const gateway of well.map(({ subject }) => gateways.get(subject))) {
      if (gateway?.status === DOWN) alarm.down(gateway, now);
    }
    components.snapshot(items, done, start, now);
    draw();
  },
  onGap(gap) {
    const now = present();
    // A page that opens gets the newest of the past, and the rest when its reader asks for it.
    const older = !current && gap.reason === "slow";
    if (!older) bar.addGap(gap);
    // What is passed over in history did not happen now, and nothing says when it did.
    panel.gap(older ? { ...gap, reason: "older" } : gap, history ? NaN : now);
    draw();
  },
  onUpstream(upstream) {
    bar.setUpstream(upstream, present());
    showBadge(gateways.down, bar.stale);
  },
  onToken(token) {
    bar.setToken(token, present());
  },
  onEpoch() {
    panel.begin();
    gateways.forgetSequences();
    components.forgetSequences();
    past.begin();
  },
};

const link = new Link(handlers, tab);
const panel = new LogPane(draw, (ask) => link.want(ask));

const bar = new LinkBar(
  () => link.connect(),
  (token) => link.authenticate(token),
  () => {
    // With the token goes all that it let this page show.
    tab.forget();
    location.reload();
  },
  tab.wasInQuery(),
);
tab.onBrought = (token) => link.authenticate(token);

/** Hand an event to its store. Returns whether it is worth a line: a healthy heartbeat is not. */
function take(item, now) {
  past.take(item);
  switch (item.event.event_type) {
    case "gateway_status_change":
      takeStatus(item, now);
      return true;
    case "system_health":
      return components.apply(item, now);
    default:
      return true;
  }
}

function takeStatus(item, now) {
  const before = gateways.get(item.subject);
  gateways.apply(item, now);
  const after = gateways.get(item.subject);
  if (after?.status !== DOWN || before?.status === DOWN) return;
  // What happened while the link was lost is news, what was before the page was opened is not.
  if (!history || parseTime(item.event.timestamp, 0) >= opened()) alarm.down(after, now);
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const now = present();
    if (tiles.show(gateways, now)) showSummary();
    past.show(gateways.get(past.key), now);
    showBadge(gateways.down, bar.stale);
    panel.draw();
  });
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
  const now = present();
  bar.tick(now);
  // Not in a frame: a hidden page has none, and its title is all that is seen of it.
  showBadge(gateways.down, bar.stale);
  bar.setRate(rate, now);
  tiles.tick(now);
  past.tick(now);
  components.tick(now);
  draw();
}

byId("tiles").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !past.key) return;
  event.stopPropagation();
  past.close();
});
byId("feed").addEventListener("scroll", draw, { passive: true });
for (const type of ["input", "change", "click", "keydown"]) document.addEventListener(type, draw);
beginTheme();
setInterval(tick, TICK_MS);
tick();
if (tab.wasInQuery()) panel.notice(STRINGS.token.inAddress);
link.connect();
