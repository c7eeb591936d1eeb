/**
 * Desktop notifications and a sound when a gateway goes down.
 *
 * Invariants: both are off until the user enables them, and the choice is stored; a silenced gateway raises no
 * alarm; gateways that go down together raise one alarm; if the browser blocks notifications, the page says so.
 */

import { byId, setAttribute } from "/assets/dom.js";
import { readPreference, savePreference } from "/assets/preferences.js";
import { STRINGS } from "/assets/strings.js";

/** @typedef {import("/assets/gateways.js").Gateway} Gateway */

/** Gateways that go down within this time share one alarm, and the minimum interval between two alarms. */
const TOGETHER_MS = 400;
const APART_MS = 3_000;

/** Maximum number of gateways that a notification lists. */
const NAMED = 4;

class Sound {
  /** @type {AudioContext|null} */ #context = null;

  /** Prepare the audio context; browsers allow that only after a user gesture. */
  allow() {
    this.#context ??= new AudioContext();
    if (this.#context.state === "suspended") this.#context.resume().catch(() => {});
  }

  /** Play two falling tones. */
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
  #notice;

  /**
   * @param {(key: string) => void} onPick called with a gateway's subject when its notification is clicked
   * @param {(text: string) => void} notice called with a message about what the browser blocks
   */
  constructor(onPick, notice) {
    this.#onPick = onPick;
    this.#notice = notice;
    this.#set(this.#notify, "notify", readPreference("notify") === "on" && this.#permission === "granted");
    this.#set(this.#soundButton, "sound", readPreference("sound") === "on");
    this.#notify.addEventListener("click", () => this.#toggleNotify());
    this.#soundButton.addEventListener("click", () => {
      this.#set(this.#soundButton, "sound", !this.#on(this.#soundButton));
      // Let the user hear what to listen for.
      if (this.#on(this.#soundButton)) this.#sound.play();
    });
    for (const type of ["pointerdown", "keydown"]) {
      document.addEventListener(type, () => this.#on(this.#soundButton) && this.#sound.allow(), { once: true });
    }
  }

  /** Raise an alarm for a gateway that went down. @param {Gateway} gateway @param {number} now */
  down(gateway, now) {
    if (gateway.silence !== null && gateway.silence.until > now) return;
    if (!this.#on(this.#notify) && !this.#on(this.#soundButton)) return;
    this.#waiting.push(gateway);
    // Not in an animation frame: hidden pages get none, and alarms are for hidden pages.
    this.#timer ||= setTimeout(() => this.#raise(), Math.max(TOGETHER_MS, this.#last + APART_MS - performance.now()));
  }

  #raise() {
    const gateways = this.#waiting;
    this.#waiting = [];
    this.#timer = 0;
    this.#last = performance.now();
    if (this.#on(this.#soundButton)) this.#sound.play();
    if (this.#on(this.#notify)) this.#showNotification(gateways);
  }

  #showNotification(gateways) {
    const [first] = gateways;
    const single = gateways.length === 1;
    const names = gateways.slice(0, NAMED).map(({ id }) => id);
    const more = gateways.length - names.length;
    const title = single ? STRINGS.controls.oneDown(first.id) : STRINGS.controls.manyDown(gateways.length);
    const body = single ? first.fault : [...names, ...(more > 0 ? [STRINGS.controls.more(more)] : [])].join(", ");
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
    const permission = this.#permission === "default" ? await Notification.requestPermission() : this.#permission;
    if (permission === "granted") this.#set(this.#notify, "notify", true);
    else this.#refused();
  }

  #refused() {
    this.#set(this.#notify, "notify", false);
    this.#notice(STRINGS.controls.refused);
  }

  get #permission() {
    return "Notification" in window ? Notification.permission : "denied";
  }

  #on(button) {
    return button.getAttribute("aria-pressed") === "true";
  }

  #set(button, name, on) {
    if (readPreference(name) !== (on ? "on" : "")) savePreference(name, on ? "on" : "");
    setAttribute(button, "aria-pressed", String(on));
    setAttribute(button, "title", STRINGS.controls.switched(button.getAttribute("aria-label"), on));
  }
}
