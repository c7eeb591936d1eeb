/**
 * State of the connection, of NATS, and of the event rate, at the top of the page.
 *
 * Invariants: stale data is marked: while the page is not live, or the relay has no connection to NATS, a banner is
 * shown and the tiles turn grey; screen readers announce a change of state once, not each second of a countdown.
 */

import { byId, setAttribute, setText } from "/assets/dom.js";
import { Flow } from "/assets/flow.js";
import { clockError } from "/assets/relayclock.js";
import { SECONDS } from "/assets/rate.js";
import { STRINGS } from "/assets/strings.js";
import { clock, count, duration, fullTime } from "/assets/times.js";
import { sentence, TokenForm } from "/assets/tokenform.js";

const CONNECTED = ["live", "catching-up"];

/** A shorter disconnect shows no banner. */
const BANNER_AFTER_MS = 700;

export class LinkBar {
  #state = byId("link");
  #phase = byId("link-word");
  #wait = byId("link-wait");
  #transport = byId("link-transport");
  #session = "";
  #banner = byId("banner");
  #headline = byId("banner-headline");
  #detail = byId("banner-detail");
  #retry = byId("retry");
  #flow = new Flow(byId("flow-chart"));
  #token;
  /** @type {import("/assets/link.js").LinkState} */
  #link = { phase: "connecting", reason: "", until: 0, prompt: "", transport: "websocket" };
  #lostAt = 0;
  #everLive = false;
  /** @type {{connected: boolean, since: string|null}} */
  #upstream = { connected: true, since: null };
  #gaps = { number: 0, events: 0, unknown: 0 };

  /**
   * @param {() => void} onRetry called when the user wants to connect now
   * @param {ConstructorParameters<typeof TokenForm>} token
   */
  constructor(onRetry, ...token) {
    this.#retry.addEventListener("click", onRetry);
    this.#token = new TokenForm(...token);
  }

  /** @param {import("/assets/link.js").LinkState} link @param {number} now */
  setLink(link, now) {
    if (CONNECTED.includes(link.phase)) {
      this.#everLive = true;
      this.#lostAt = 0;
    } else if (this.#lostAt === 0) {
      this.#lostAt = now;
    }
    // Keep the prompt while the relay verifies the token that was entered: otherwise it would flicker.
    const { prompt } = this.#link;
    this.#link = link.phase === "connecting" && prompt ? { ...link, reason: "", prompt } : link;
    const shown = this.#link.prompt ? "no-token" : link.phase;
    setAttribute(this.#state, "data-phase", shown);
    setText(this.#phase, STRINGS.link.phases[shown]);
    this.#showTransport();
    this.tick(now);
    if (link.prompt) this.#token.focus();
  }

  /** @param {import("/assets/access.js").AccessState} token @param {number} now */
  setToken(token, now) {
    this.#token.set(token);
    this.tick(now);
  }

  /** @param {Record<string, any>} welcome */
  setRelay(welcome) {
    this.#session = STRINGS.link.session(welcome.relay, welcome.session);
    this.#showTransport();
  }

  #showTransport() {
    const { phase, transport } = this.#link;
    const stream = transport === "stream" && CONNECTED.includes(phase);
    setText(this.#transport, stream ? STRINGS.link.overStream : "");
    const title = stream ? `${STRINGS.link.overStreamDetail}\n${this.#session}` : this.#session;
    if (title) setAttribute(this.#state, "title", title);
  }

  /** @param {{connected: boolean, since: string|null}} upstream @param {number} now */
  setUpstream(upstream, now) {
    this.#upstream = upstream;
    this.tick(now);
  }

  /** Count a gap. @param {{dropped: number|null, reason: string}} gap */
  addGap({ dropped }) {
    const gaps = this.#gaps;
    gaps.number += 1;
    if (typeof dropped === "number") gaps.events += dropped;
    else gaps.unknown += 1;
    byId("lost-box").hidden = false;
    setText(byId("lost"), gaps.unknown > 0 ? `${count(gaps.events)}+` : count(gaps.events));
    const unknown = gaps.unknown > 0 ? STRINGS.flow.unknownGaps(count(gaps.unknown)) : "";
    setAttribute(byId("lost-box"), "title", STRINGS.flow.gaps(count(gaps.number)) + unknown);
  }

  /** Set while the data shown may be outdated. */
  get stale() {
    return document.body.dataset.stale === "true";
  }

  /** Update what depends on the time. @param {number} now */
  tick(now) {
    const { phase, reason, until, prompt } = this.#link;
    const left = Math.max(0, Math.ceil((until - now) / 1000));
    setText(this.#wait, until > 0 ? STRINGS.link.in(left) : "");
    const lost = !CONNECTED.includes(phase) && (phase === "closed" || prompt !== "" || now - this.#lostAt >= BANNER_AFTER_MS);
    const upstreamDown = !lost && !this.#upstream.connected;
    const offered = !lost && this.#token.offered;
    this.#banner.hidden = !lost && !upstreamDown && !offered;
    setAttribute(document.body, "data-stale", String(lost || upstreamDown));
    // A prompt is not an alarm as long as the page has no data that could be outdated.
    const calm = lost ? prompt !== "" && !this.#everLive : !upstreamDown;
    setAttribute(this.#banner, "data-tone", !calm ? "alarm" : lost ? "ask" : "offer");
    this.#retry.hidden = !lost || prompt !== "" || phase === "connecting";
    const form = this.#promptForToken(lost ? prompt : "", reason, offered);
    if (lost) this.#showLost(phase, reason, form);
    else if (upstreamDown) this.#showUpstreamDown();
    else if (form) this.#showBanner(form.headline, form.detail);
    this.#token.tick(now);
    const off = clockError();
    setText(byId("clock-off"), off === 0 ? "" : STRINGS.link.clockOff(duration(Math.abs(off)), off > 0));
  }

  #promptForToken(prompt, reason, offered) {
    if (prompt) return this.#token.prompt(prompt, reason);
    if (offered) return this.#token.promptRenewal();
    this.#token.hide();
    return null;
  }

  #showLost(phase, reason, form) {
    const asOf = this.#everLive ? STRINGS.link.asOf(clock(this.#lostAt).slice(0, 8)) : "";
    const headline = phase === "closed" ? STRINGS.link.closed : STRINGS.link.lost;
    const detail = form ? form.detail : sentence(reason);
    this.#showBanner(form?.headline ?? headline, [detail, asOf].join(" ").trim());
  }

  #showBanner(headline, detail) {
    setText(this.#headline, headline);
    setText(this.#detail, detail);
  }

  #showUpstreamDown() {
    const at = Date.parse(this.#upstream.since ?? "");
    const since = Number.isNaN(at) ? "" : clock(at).slice(0, 8);
    this.#showBanner(STRINGS.link.upstreamDown, STRINGS.link.noEvents(since));
  }

  /**
   * Show the event rate.
   * @param {import("/assets/rate.js").Rate} rate
   * @param {number} now UNIX milliseconds
   */
  setRate(rate, now) {
    if (this.#everLive && this.#lostAt > 0) rate.markDisconnected(this.#lostAt, now);
    setText(byId("rate"), count(rate.seconds(now)[SECONDS - 1]));
    this.#flow.show(rate, now);
    for (const part of byId("rate-levels").children) {
      const number = rate.seconds(now, [part.dataset.level])[SECONDS - 1];
      setText(part.firstElementChild, count(number));
      setAttribute(part, "data-active", String(number > 0));
    }
    const age = byId("age");
    setText(age, rate.last ? STRINGS.flow.ago(duration(now - rate.last)) : STRINGS.flow.noneYet);
    if (rate.last) setAttribute(age, "title", fullTime(rate.last));
  }
}
