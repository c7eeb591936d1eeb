/**
 * The state of the connection, of NATS, and of the flow, at the top of the page.
 *
 * Invariants: what is out of date says so: while the page is not live, or NATS is away, a banner stands over
 * everything and the tiles fade; a reader of a screen hears a change of state once, not each second of a wait.
 */

import { byId, setAttribute, setText } from "/assets/dom.js";
import { SECONDS, sparkline } from "/assets/rate.js";
import { clock, count, duration, fullTime } from "/assets/times.js";

const SPARK_HEIGHT = 18;

/** A link that comes back sooner than this is a blink, and no banner. */
const BANNER_AFTER_MS = 700;

const WORDS = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", closed: "Closed" };

export class LinkBar {
  #state = byId("link");
  #word = byId("link-word");
  #wait = byId("link-wait");
  #banner = byId("banner");
  #headline = byId("banner-headline");
  #detail = byId("banner-detail");
  #retry = byId("retry");
  #token = byId("token-form");
  /** @type {import("/assets/connection.js").Link} */
  #link = { phase: "connecting", reason: "", until: 0, needsToken: false };
  #lostAt = 0;
  #everLive = false;
  #upstream = { state: "connected", since: "" };

  /**
   * @param {() => void} onRetry the reader wants to connect now
   * @param {(token: string) => void} onToken the reader gives a token
   */
  constructor(onRetry, onToken) {
    this.#retry.addEventListener("click", onRetry);
    const input = /** @type {HTMLInputElement} */ (byId("token"));
    this.#token.addEventListener("submit", (event) => {
      event.preventDefault();
      const token = input.value.trim();
      input.value = "";
      if (token) onToken(token);
    });
  }

  /** @param {import("/assets/connection.js").Link} link @param {number} now */
  setLink(link, now) {
    if (link.phase === "live") {
      this.#everLive = true;
      this.#lostAt = 0;
    } else if (this.#lostAt === 0) {
      this.#lostAt = now;
    }
    this.#link = link;
    setAttribute(this.#state, "data-phase", link.phase);
    setText(this.#word, WORDS[link.phase]);
    this.tick(now);
  }

  /** @param {Record<string, any>} welcome */
  setRelay(welcome) {
    setAttribute(this.#state, "title", `relay ${welcome.relay}, session ${welcome.session}`);
  }

  /** @param {string} state @param {string} since @param {number} now */
  setUpstream(state, since, now) {
    this.#upstream = { state, since };
    this.tick(now);
  }

  /** Write what only time changes. @param {number} now */
  tick(now) {
    const { phase, reason, until } = this.#link;
    const left = Math.max(0, Math.ceil((until - now) / 1000));
    setText(this.#wait, phase === "waiting" ? `in ${left} s` : "");
    const lost = phase !== "live" && (phase === "closed" || now - this.#lostAt >= BANNER_AFTER_MS);
    const away = !lost && this.#upstream.state === "disconnected";
    this.#banner.hidden = !lost && !away;
    setAttribute(document.body, "data-stale", String(lost || away));
    const needsToken = lost && this.#link.needsToken;
    this.#retry.hidden = !lost || needsToken || phase === "connecting";
    this.#token.hidden = !needsToken;
    if (lost) this.#showLost(phase, reason);
    else if (away) this.#showAway();
  }

  #showLost(phase, reason) {
    const asOf = this.#everLive ? `Everything below is as of ${clock(this.#lostAt).slice(0, 8)}.` : "";
    const ended = this.#link.needsToken ? "A token is needed" : "The connection is closed";
    const headline = phase === "closed" ? ended : "Not connected to the relay";
    setText(this.#headline, headline);
    setText(this.#detail, [reason ? `${reason[0].toUpperCase()}${reason.slice(1)}.` : "", asOf].join(" ").trim());
  }

  #showAway() {
    const at = Date.parse(this.#upstream.since);
    const since = Number.isNaN(at) ? "" : ` since ${clock(at).slice(0, 8)}`;
    setText(this.#headline, "NATS is away");
    setText(this.#detail, `The relay has heard nothing${since}. What is below may be out of date.`);
  }

  /**
   * Show the flow.
   * @param {import("/assets/rate.js").Rate} rate
   * @param {number} now UNIX milliseconds
   */
  setRate(rate, now) {
    const seconds = rate.seconds(now);
    setText(byId("rate"), count(seconds[SECONDS - 1]));
    setAttribute(byId("spark-path"), "d", sparkline(seconds, SPARK_HEIGHT));
    const most = Math.max(...seconds);
    setText(byId("spark-title"), `Events in each of the last ${SECONDS} seconds, at most ${count(most)}`);
    const age = byId("age");
    setText(age, rate.last ? `${duration(now - rate.last)} ago` : "none yet");
    if (rate.last) setAttribute(age, "title", fullTime(rate.last));
  }
}
