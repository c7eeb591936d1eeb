/**
 * Notifications of the desktop, and a sound, when a gateway goes down.
 *
 * Invariants: both are off until the reader wants them, and what was chosen is remembered; a gateway whose alerts
 * are not wanted raises none; gateways that go down together raise one alarm; where the browser forbids it, the
 * page says so instead of staying silent about its silence.
 */

import { byId, setAttribute } from "/assets/dom.js";
import { recall, store } from "/assets/remember.js";
import { STRINGS } from "/assets/strings.js";

/** @typedef {import("/assets/gateways.js").Gateway} Gateway */

/** Gateways that go down within this time are told together, and alarms are as far apart at least. */
const TOGETHER_MS = 400;
const APART_MS = 3_000;

/** Gateways that a notification names. */
const NAMED = 4;

class Sound {
  /** @type {AudioContext|null} */ #context = null;

  /** Get ready; a browser allows it only when the reader did something. */
  allow() {
    this.#context ??= new AudioContext();
    if (this.#context.state === "suspended") this.#context.resume().catch(() => {});
  }

  /** Two falling tones. */
  play() {
    this.allow();
    const { currentTime: start, destination } = this.#context;
    for (const [i, pitch] of [660, 440].entries()) {
      const at = start + i * 0.18;
      const tone = this.#context.createOscillator();
      const volume = this.#context.createGain();
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0.0001, at);
      volume.gain.exponentialRampToValueAtTime(0.25, at + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.0001, at + 0.17);
      tone.connect(volume).connect(destination);
      tone.start(at);
      tone.stop(at + 0.18);
    }
  }
}

export class Alarm {
  #notify = byId("notify");
  #soundButton = byId("sound");
  #sound = new Sound();
  /** @type {Gateway[]} */ #waiting = [];
  #timer = 0;
  #last = -APART_MS;
  #onPick;
  #say;

  /**
   * @param {(key: string) => void} onPick called with a gateway's subject when its notification is pressed
   * @param {(text: string) => void} say tells the reader what the browser does not allow
   */
  constructor(onPick, say) {
    this.#onPick = onPick;
    this.#say = say;
    this.#set(this.#notify, "notify", recall("notify") === "on" && this.#permission === "granted");
    this.#set(this.#soundButton, "sound", recall("sound") === "on");
    this.#notify.addEventListener("click", () => this.#toggleNotify());
    this.#soundButton.addEventListener("click", () => {
      this.#set(this.#soundButton, "sound", !this.#on(this.#soundButton));
      // So that the reader knows what to listen for.
      if (this.#on(this.#soundButton)) this.#sound.play();
    });
    for (const type of ["pointerdown", "keydown"]) {
      document.addEventListener(type, () => this.#on(this.#soundButton) && this.#sound.allow(), { once: true });
    }
  }

  /** A gateway went down. @param {Gateway} gateway @param {number} now */
  down(gateway, now) {
    if (gateway.silence !== null && gateway.silence.until > now) return;
    if (!this.#on(this.#notify) && !this.#on(this.#soundButton)) return;
    this.#waiting.push(gateway);
    // Not in a frame: a hidden page has none, and it is what alarms are for.
    this.#timer ||= setTimeout(() => this.#raise(), Math.max(TOGETHER_MS, this.#last + APART_MS - performance.now()));
  }

  #raise() {
    const gateways = this.#waiting;
    this.#waiting = [];
    this.#timer = 0;
    this.#last = performance.now();
    if (this.#on(this.#soundButton)) this.#sound.play();
    if (this.#on(this.#notify)) this.#tell(gateways);
  }

  #tell(gateways) {
    const [first] = gateways;
    const one = gateways.length === 1;
    const names = gateways.slice(0, NAMED).map(({ id }) => id);
    const more = gateways.length - names.length;
    const title = one ? STRINGS.wishes.oneDown(first.id) : STRINGS.wishes.manyDown(gateways.length);
    const body = one ? first.fault : [...names, ...(more > 0 ? [STRINGS.wishes.more(more)] : [])].join(", ");
    try {
      const shown = new Notification(title, { body, tag: "tickertape", icon: "/assets/favicon-down.svg" });
      shown.onclick = () => {
        window.focus();
        shown.close();
        this.#onPick(first.key);
      };
    } catch {
      this.#refused();
    }
  }

  async #toggleNotify() {
    if (this.#on(this.#notify)) {
      this.#set(this.#notify, "notify", false);
      return;
    }
    const answer = this.#permission === "default" ? await Notification.requestPermission() : this.#permission;
    if (answer === "granted") this.#set(this.#notify, "notify", true);
    else this.#refused();
  }

  #refused() {
    this.#set(this.#notify, "notify", false);
    this.#say(STRINGS.wishes.refused);
  }

  get #permission() {
    return "Notification" in window ? Notification.permission : "denied";
  }

  #on(button) {
    return button.getAttribute("aria-pressed") === "true";
  }

  #set(button, name, on) {
    if (recall(name) !== (on ? "on" : "")) store(name, on ? "on" : "");
    setAttribute(button, "aria-pressed", String(on));
    setAttribute(button, "title", STRINGS.wishes.switched(button.getAttribute("aria-label"), on));
  }
}
