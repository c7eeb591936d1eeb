/**
 * A chart with uPlot, which is loaded when the page stands: what the page has to say never waits for it.
 *
 * Invariants:
 * 1. uPlot is asked for once the page has loaded, whether or not a chart is shown, so that one that is opened when the
 *    network is gone can be drawn. Until it is there, and when it never comes, the box is empty and its label tells.
 * 2. Colours are those of the style sheet; a change of theme draws the chart anew.
 * 3. What is pointed at, or chosen by a key, stays chosen while the chart moves on below it. A reader of a screen gets
 *    the label, which says in words what the chart shows.
 */

import { element, setAttribute } from "/assets/dom.js";

const SCRIPT = "/assets/vendor/uPlot.iife.min.js";
const SHEET = "/assets/vendor/uPlot.min.css";

/** What could not be loaded is asked for again after this, while there is something to draw. */
const AGAIN_MS = 10_000;

const GAP = 6;
const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
const NO_DRAG = { x: false, y: false };

/** The cursor stands where there is data. @type {(plot: any, left: number, top: number) => [number, number]} */
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
    // First of all sheets, so that those of the page win.
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
 * A round number that is not below a value, for the top of a scale; half of it is round too.
 * @param {number} value
 * @param {number} least
 * @returns {number}
 */
export function roundUp(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * [1, 2, 4, 6, 8, 10].find((step) => step * power >= wanted - 1e-9 * power);
}

export class Chart {
  /** @type {any} */ #plot = null;
  /** @type {(number|null)[][]} */ #data = [[]];
  /** @type {Map<string, string>} */ #colours = new Map();
  #probe = element("i", "chart-probe");
  #tip = element("div", "tip chart-tip");
  /** What is pointed at, a value of the x axis; NaN for nothing. */
  #at = NaN;
  #moving = false;
  #options;
  #tell;

  /**
   * @param {HTMLElement} box as large as the style sheet makes it
   * @param {() => Record<string, any>} options of uPlot, made anew each time when the chart is
   * @param {(index: number) => Node[]} tell what there is to say of a place in the data
   */
  constructor(box, options, tell) {
    this.box = box;
    this.#options = options;
    this.#tell = tell;
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
   * @param {(number|null)[][]} data as uPlot has them: x, then each series
   * @param {string} label what the chart says, in words
   */
  show(data, label) {
    this.#data = data;
    setAttribute(this.box, "aria-label", label);
    if (document.readyState === "complete") load();
    this.draw();
  }

  /** A colour as the style sheet has it, in any notation. @param {string} name such as "--accent" */
  colour(name) {
    let found = this.#colours.get(name);
    if (found === undefined) {
      // Read from a property that is a colour: a custom one keeps its light-dark() as it was written.
      this.#probe.style.color = `var(${name})`;
      this.#colours.set(name, (found = getComputedStyle(this.#probe).color));
    }
    return found;
  }

  recolour() {
    this.#colours.clear();
    this.#plot?.redraw(false);
  }

  /** Forget how it was drawn: the options are others. */
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
    // Where the pointer is there is something else now.
    this.#choose(this.#at);
  }

  #make(width, height) {
    const { cursor = {}, ...options } = this.#options();
    const moved = (plot) => {
      if (this.#moving) return;
      const index = plot.cursor.idx ?? -1;
      this.#at = index < 0 || plot.cursor.left < 0 ? NaN : plot.data[0][index];
      this.#say(index);
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

  /** Point at a place. @param {number} at a value of the x axis; one that is not there is none */
  #choose(at) {
    const found = this.#data[0].indexOf(at);
    if (found < 0) this.#at = NaN;
    // It fires the hook above, which says what stands there.
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

  #say(index) {
    this.#tip.hidden = Number.isNaN(this.#at);
    if (this.#tip.hidden) return;
    this.#tip.replaceChildren(...this.#tell(index));
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
