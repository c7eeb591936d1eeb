/**
 * The state of the connection, of NATS, and of the flow, at the top of the page.
 *
 * Invariants: what is out of date says so: while the page is not live, or NATS is away, a banner stands over
 * everything and the tiles fade; a reader of a screen hears a change of state once, not each second of a wait.
 */

import { byId, setAttribute, setText } from "/assets/dom.js";
import { Flow } from "/assets/flow.js";
import { clockError } from "/assets/present.js";
import { SECONDS } from "/assets/rate.js";
import { STRINGS } from "/assets/strings.js";
import { clock, count, duration, fullTime } from "/assets/times.js";
import { sentence, TokenForm } from "/assets/tokenform.js";

const CONNECTED = ["live", "catching-up"];

/** A link that comes back sooner than this is a blink, and no banner. */
const BANNER_AFTER_MS = 700;

export class LinkBar {
  #state = byId("link");
  #word = byId("link-word");
  #wait = byId("link-wait");
  #banner = byId("banner");
  #headline = byId("banner-headline");
  #detail = byId("banner-detail");
  #retry = byId("retry");
  #flow = new Flow(byId("flow-chart"));
  #token;
  /** @type {import("/assets/link.js").Standing} */
  #link = { phase: "connecting", reason: "", until: 0, ask: "" };
  #lostAt = 0;
  #everLive = false;
  /** @type {{connected: boolean, since: string|null}} */
  #upstream = { connected: true, since: null };
  #gaps = { number: 0, events: 0, unknown: 0 };

  /**
   * @param {() => void} onRetry the reader wants to connect now
   * @param {ConstructorParameters<typeof TokenForm>} token
   */
  constructor(onRetry, ...token) {
    this.#retry.addEventListener("click", onRetry);
    this.#token = new TokenForm(...token);
  }

  /** @param {import("/assets/link.js").Standing} link @param {number} now */
  setLink(link, now) {
    if (CONNECTED.includes(link.phase)) {
      this.#everLive = true;
      this.#lostAt = 0;
    } else if (this.#lostAt === 0) {
      this.#lostAt = now;
    }
    // While the relay looks at what it was given, the question stands: otherwise it would blink.
    const { ask } = this.#link;
    this.#link = link.phase === "connecting" && ask ? { ...link, reason: "", ask } : link;
    const shown = this.#link.ask ? "asking" : link.phase;
    setAttribute(this.#state, "data-phase", shown);
    setText(this.#word, STRINGS.link.phases[shown]);
    this.tick(now);
    if (link.ask) this.#token.focus();
  }

  /** @param {import("/assets/access.js").AccessState} token @param {number} now */
  setToken(token, now) {
    this.#token.set(token);
    this.tick(now);
  }

  /** @param {Record<string, any>} welcome */
  setRelay(welcome) {
    setAttribute(this.#state, "title", STRINGS.link.session(welcome.relay, welcome.session));
  }

  /** @param {{connected: boolean, since: string|null}} upstream @param {number} now */
  setUpstream(upstream, now) {
    this.#upstream = upstream;
    this.tick(now);
  }

  /** Count what was passed over. @param {{dropped: number|null, reason: string}} gap */
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

  /** True when what is shown may be out of date. */
  get stale() {
    return document.body.dataset.stale === "true";
  }

  /** Write what only time changes. @param {number} now */
  tick(now) {
    const { phase, reason, until, ask } = this.#link;
    const left = Math.max(0, Math.ceil((until - now) / 1000));
    setText(this.#wait, until > 0 ? STRINGS.link.in(left) : "");
    const lost = !CONNECTED.includes(phase) && (phase === "closed" || ask !== "" || now - this.#lostAt >= BANNER_AFTER_MS);
    const away = !lost && !this.#upstream.connected;
    const offered = !lost && this.#token.offered;
    this.#banner.hidden = !lost && !away && !offered;
    setAttribute(document.body, "data-stale", String(lost || away));
    // A question is no alarm while there is nothing on the page that could be out of date.
    const calm = lost ? ask !== "" && !this.#everLive : !away;
    setAttribute(this.#banner, "data-tone", !calm ? "alarm" : lost ? "ask" : "offer");
    this.#retry.hidden = !lost || ask !== "" || phase === "connecting";
    const asked = this.#askForToken(lost ? ask : "", reason, offered);
    if (lost) this.#showLost(phase, reason, asked);
    else if (away) this.#showAway();
    else if (asked) this.#say(asked.headline, asked.detail);
    this.#token.tick(now);
    const off = clockError();
    setText(byId("clock-off"), off === 0 ? "" : STRINGS.link.clockOff(duration(Math.abs(off)), off > 0));
  }

  #askForToken(ask, reason, offered) {
    if (ask) return this.#token.ask(ask, reason);
    if (offered) return this.#token.offer();
    this.#token.hide();
    return null;
  }

  #showLost(phase, reason, asked) {
    const asOf = this.#everLive ? STRINGS.link.asOf(clock(this.#lostAt).slice(0, 8)) : "";
    const headline = phase === "closed" ? STRINGS.link.closed : STRINGS.link.lost;
    const detail = asked ? asked.detail : sentence(reason);
    this.#say(asked?.headline ?? headline, [detail, asOf].join(" ").trim());
  }

  #say(headline, detail) {
    setText(this.#headline, headline);
    setText(this.#detail, detail);
  }

  #showAway() {
    const at = Date.parse(this.#upstream.since ?? "");
    const since = Number.isNaN(at) ? "" : clock(at).slice(0, 8);
    this.#say(STRINGS.link.away, STRINGS.link.unheard(since));
  }

  /**
   * Show the flow.
   * @param {import("/assets/rate.js").Rate} rate
   * @param {number} now UNIX milliseconds
   */
  setRate(rate, now) {
    if (this.#everLive && this.#lostAt > 0) rate.deafen(this.#lostAt, now);
    setText(byId("rate"), count(rate.seconds(now)[SECONDS - 1]));
    this.#flow.show(rate, now);
    for (const part of byId("rate-levels").children) {
      const number = rate.seconds(now, [part.dataset.level])[SECONDS - 1];
      setText(part.firstElementChild, count(number));
      setAttribute(part, "data-some", String(number > 0));
    }
    const age = byId("age");
    setText(age, rate.last ? STRINGS.flow.ago(duration(now - rate.last)) : STRINGS.flow.noneYet);
    if (rate.last) setAttribute(age, "title", fullTime(rate.last));
  }
}
