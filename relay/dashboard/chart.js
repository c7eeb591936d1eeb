/**
 * Charts drawn by uPlot, which is loaded after the page: the rest of the page never waits for it.
 *
 * Invariants:
 * 1. uPlot is requested once the page has loaded, even if no chart is visible, so that a chart opened without a network
 *    can be drawn. Until it is loaded, or if it never is, the box is empty and only its label describes the data.
 * 2. Colours come from the style sheet; a change of theme redraws the chart.
 * 3. The selected point stays selected while the data moves on. Screen readers get the label, which describes in words
 *    what the chart shows.
 */

import { element, setAttribute } from "/assets/dom.js";

const SCRIPT = "/assets/vendor/uPlot.iife.min.js";
const SHEET = "/assets/vendor/uPlot.min.css";

/** Delay before a failed download of uPlot is retried, if there is something to draw. */
const AGAIN_MS = 10_000;

const GAP = 6;
const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
const NO_DRAG = { x: false, y: false };

/** Snap the cursor to the nearest data point. @type {(plot: any, left: number, top: number) => [number, number]} */
function snap(plot, left, top) {
  return left < 0 ? [left, top] : [plot.valToPos(plot.data[0][plot.posToIdx(left)], "x"), top];
}

const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
/** @type {Set<Chart>} */ const charts = new Set();

/** @type {Promise<void>|null} */ let loading = null;
let failedAt = -Infinity;

function load() {
  if (loading || performance.now() - failedAt < AGAIN_MS) return;
  loading = new Promise((loaded, failed) => {
    const script = document.createElement("script");
    script.src = SCRIPT;
    script.addEventListener("load", () => loaded());
    script.addEventListener("error", () => (script.remove(), failed(new Error(SCRIPT))));
    // Before all other sheets, so that the page's own rules win.
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = SHEET;
    if (!document.head.querySelector(`link[href="${SHEET}"]`)) document.head.prepend(sheet);
    document.head.append(script);
  });
  loading.then(
    () => charts.forEach((chart) => chart.draw()),
    () => {
      loading = null;
      failedAt = performance.now();
    },
  );
}

if (document.readyState === "complete") setTimeout(load);
else window.addEventListener("load", () => setTimeout(load));

function recolour() {
  for (const chart of charts) chart.recolour();
}
dark.addEventListener("change", recolour);
new MutationObserver(recolour).observe(root, { attributes: true, attributeFilter: ["data-theme"] });

/**
 * Round a value up to a round number for the top of a scale; so is its half.
 * @param {number} value
 * @param {number} least minimum result
 * @returns {number}
 */
export function roundUp(value, least) {
  const target = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(target));
  return power * [1, 2, 4, 6, 8, 10].find((step) => step * power >= target - 1e-9 * power);
}

export class Chart {
  /** @type {any} */ #plot = null;
  /** @type {(number|null)[][]} */ #data = [[]];
  /** @type {Map<string, string>} */ #colours = new Map();
  #probe = element("i", "chart-probe");
  #tip = element("div", "tip chart-tip");
  /** Selected value of the x axis; NaN if none is selected. */
  #at = NaN;
  #moving = false;
  #options;
  #describe;

  /**
   * @param {HTMLElement} box element that the chart fills; its size comes from the style sheet
   * @param {() => Record<string, any>} options returns the options for uPlot, each time the chart is created
   * @param {(index: number) => Node[]} describe returns the content of the tooltip for a data point
   */
  constructor(box, options, describe) {
    this.box = box;
    this.#options = options;
    this.#describe = describe;
    box.setAttribute("role", "img");
    box.tabIndex = 0;
    this.#tip.hidden = true;
    this.#tip.setAttribute("aria-hidden", "true");
    box.append(this.#probe);
    document.body.append(this.#tip);
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("blur", () => this.#choose(NaN));
    new ResizeObserver(() => this.draw()).observe(box);
    charts.add(this);
  }

  /**
   * Show data.
   * @param {(number|null)[][]} data in uPlot's format: x values, then each series
   * @param {string} label description of the data in words
   */
  show(data, label) {
    this.#data = data;
    setAttribute(this.box, "aria-label", label);
    if (document.readyState === "complete") load();
    this.draw();
  }

  /** Resolve a colour of the style sheet. @param {string} name such as "--accent" */
  colour(name) {
    let found = this.#colours.get(name);
    if (found === undefined) {
      // Read it through a colour property: a custom property would return light-dark() unresolved.
      this.#probe.style.color = `var(${name})`;
      this.#colours.set(name, (found = getComputedStyle(this.#probe).color));
    }
    return found;
  }

  recolour() {
    this.#colours.clear();
    this.#plot?.redraw(false);
  }

  /** Recreate the chart, because its options changed. */
  rebuild() {
    this.#plot?.destroy();
    this.#plot = null;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (typeof window.uPlot !== "function" || width === 0 || this.#data[0].length === 0) {
      this.#choose(NaN);
      return;
    }
    this.#moving = true;
    if (!this.#plot) this.#plot = this.#make(width, height);
    const plot = this.#plot;
    if (plot.width !== width || plot.height !== height) plot.setSize({ width, height });
    plot.batch(() => plot.setData(this.#data));
    this.#moving = false;
    // There is different data under the pointer now.
    this.#choose(this.#at);
  }

  #make(width, height) {
    const { cursor = {}, ...options } = this.#options();
    const moved = (plot) => {
      if (this.#moving) return;
      const index = plot.cursor.idx ?? -1;
      this.#at = index < 0 || plot.cursor.left < 0 ? NaN : plot.data[0][index];
      this.#showTip(index);
    };
    const given = {
      legend: { show: false },
      ...options,
      width,
      height,
      cursor: { y: false, drag: NO_DRAG, move: snap, ...cursor },
      hooks: { ...options.hooks, setCursor: [moved] },
    };
    return new window.uPlot(given, this.#data, this.box);
  }

  /** Select a data point. @param {number} at its value on the x axis; an unknown value clears the selection */
  #choose(at) {
    const found = this.#data[0].indexOf(at);
    if (found < 0) this.#at = NaN;
    // This fires the setCursor hook, which updates the tooltip.
    if (this.#plot && found >= 0) this.#plot.setCursor({ left: this.#plot.valToPos(at, "x"), top: 0 });
    else if (this.#plot?.cursor.left >= 0) this.#plot.setCursor({ left: -10, top: -10 });
    else this.#tip.hidden = true;
  }

  #key(event) {
    if (event.key === "Escape" && !Number.isNaN(this.#at)) {
      event.stopPropagation();
      this.#choose(NaN);
      return;
    }
    const step = STEPS[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey || !this.#plot) return;
    event.preventDefault();
    event.stopPropagation();
    const [xs] = this.#data;
    const from = Number.isNaN(this.#at) ? xs.length - (step < 0 ? 0 : 1) : xs.indexOf(this.#at);
    this.#choose(xs[Math.max(0, Math.min(xs.length - 1, from + step))]);
  }

  #showTip(index) {
    this.#tip.hidden = Number.isNaN(this.#at);
    if (this.#tip.hidden) return;
    this.#tip.replaceChildren(...this.#describe(index));
    const over = this.#plot.over.getBoundingClientRect();
    const own = this.#tip.getBoundingClientRect();
    const middle = over.left + this.#plot.cursor.left;
    const above = over.top - own.height - GAP;
    const left = middle - own.width / 2;
    const top = above < GAP ? over.bottom + GAP : above;
    this.#tip.style.left = `${Math.round(Math.max(GAP, Math.min(left, innerWidth - own.width - GAP)))}px`;
    this.#tip.style.top = `${Math.round(Math.max(GAP, Math.min(top, innerHeight - own.height - GAP)))}px`;
  }
}
