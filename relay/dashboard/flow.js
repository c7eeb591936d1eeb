/**
 * Chart of events per second by level, below the header.
 *
 * Invariants: severe levels are at the bottom, where their height can be read, and a single event among thousands stays
 * visible; seconds without a connection are marked, because no events received does not mean that none were published.
 */

import { Chart, roundUp } from "/assets/chart.js";
import { element } from "/assets/dom.js";
import { SECONDS } from "/assets/rate.js";
import { STRINGS } from "/assets/strings.js";
import { clock, count } from "/assets/times.js";

/** Layers from the bottom up: level and colour. */
const LAYERS = [
  { kind: "CRITICAL", colour: "--level-critical" },
  { kind: "ERROR", colour: "--level-error" },
  { kind: "WARN", colour: "--level-warn" },
  { kind: "INFO", colour: "--level-info" },
  { kind: "DEBUG", colour: "--level-debug" },
  { kind: "", colour: "--level-none" },
];

/** Minimum width of a second in pixels: narrow windows show fewer of them. */
const PIXELS_PER_SECOND = 3;
const STEP = 60;

/** Redraw interval with reduced motion; the numbers beside the chart are not delayed. */
const REDUCED_MOTION_MS = 10_000;
const REDUCED_MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");

/** Narrow windows show no axes; the same limit as in style.css. */
const SLIM = window.matchMedia("(max-width: 560px)");

/** Minimum height of a bar in pixels, and the gap between two bars as a share of their width. */
const MIN_HEIGHT = 1.5;
const BAR_GAP = 0.2;

const sum = (values) => values.reduce((all, value) => all + value, 0);

export class Flow {
  /** @type {number[][]} */ #layers = [];
  /** @type {boolean[]} */ #disconnected = [];
  /** @type {number[]} */ #seconds = [];
  #drawnAt = -Infinity;
  #chart;

  /** @param {HTMLElement} box */
  constructor(box) {
    this.#chart = new Chart(
      box,
      () => this.#options(),
      (index) => this.#describe(index),
    );
    SLIM.addEventListener("change", () => this.#chart.rebuild());
  }

  /** @param {import("/assets/rate.js").Rate} rate @param {number} now UNIX milliseconds */
  show(rate, now) {
    if (document.hidden || (REDUCED_MOTION.matches && now - this.#drawnAt < REDUCED_MOTION_MS && now >= this.#drawnAt)) return;
    this.#drawnAt = now;
    const width = this.#chart.box.clientWidth;
    const shown = Math.max(STEP, Math.min(SECONDS, Math.floor(width / PIXELS_PER_SECOND / STEP) * STEP));
    const end = Math.floor(now / 1000);
    this.#seconds = Array.from({ length: shown }, (_, i) => end - shown + i);
    this.#layers = LAYERS.map(({ kind }) => rate.seconds(now, [kind]).slice(-shown));
    this.#disconnected = rate.disconnected(now).slice(-shown);
    this.#chart.show([this.#seconds, ...this.#layers], this.#label());
  }

  #label() {
    const shown = this.#seconds.length;
    const span = STRINGS.flow.span(shown);
    const all = LAYERS.map(({ kind }, i) => [sum(this.#layers[i]), STRINGS.flow.levels[kind]]).filter(([number]) => number > 0);
    const max = this.#max();
    if (max === 0) return STRINGS.flow.none(span);
    const parts = all.map(([number, name]) => `${count(number)} ${name}`).join(", ");
    return STRINGS.flow.label(span, parts, count(max));
  }

  #max() {
    return Math.max(...this.#seconds.map((_, i) => this.#total(i)));
  }

  #total(index) {
    return sum(this.#layers.map((layer) => layer[index]));
  }

  #describe(index) {
    const at = clock(this.#seconds[index] * 1000).slice(0, 8);
    const total = this.#total(index);
    const lines = LAYERS.map(({ kind, colour }, i) => {
      const number = this.#layers[i][index];
      if (number === 0) return null;
      const swatch = element("i", "chart-swatch");
      swatch.style.background = `var(${colour})`;
      return element("p", "", swatch, element("b", "number", count(number)), ` ${STRINGS.flow.levels[kind]}`);
    });
    const disconnected = this.#disconnected[index] ? element("p", "", STRINGS.flow.disconnected) : null;
    const head = element("p", "chart-when", STRINGS.flow.moment(at, total, count(total)));
    return [head, disconnected, ...lines].filter((line) => line !== null);
  }

  #options() {
    const colour = (name) => () => this.#chart.colour(name);
    const axis = { stroke: colour("--soft"), font: "11px sans-serif", show: !SLIM.matches, ticks: { show: false } };
    return {
      padding: SLIM.matches ? [2, 0, 0, 0] : [6, 0, 0, 0],
      cursor: { points: { show: false } },
      scales: { x: { range: (_, min, max) => [min - 0.5, max + 0.5] }, y: { range: () => [0, roundUp(this.#max(), 4)] } },
      axes: [
        {
          ...axis,
          size: 17,
          gap: 2,
          grid: { show: false },
          splits: minutes,
          values: (_, at) => at.map((second) => clock(second * 1000).slice(0, 5)),
        },
        {
          ...axis,
          side: 1,
          size: 52,
          gap: 5,
          grid: { stroke: colour("--line"), width: 1 },
          splits: (plot) => [0, plot.scales.y.max],
          values: (_, at) => at.map((value) => (value === 0 ? "" : STRINGS.flow.perSecond(count(value)))),
        },
      ],
      series: [{}, ...LAYERS.map((layer) => ({ fill: colour(layer.colour), width: 0, points: { show: false }, paths: stacked }))],
      hooks: { drawClear: [(plot) => this.#markDisconnected(plot)] },
    };
  }

  #markDisconnected(plot) {
    const { ctx, bbox } = plot;
    ctx.fillStyle = this.#chart.colour("--level-disconnected");
    const [start, wide] = [plot.valToPos(this.#seconds[0] - 0.5, "x", true), bbox.width / this.#seconds.length];
    this.#disconnected.forEach((disconnected, i) => {
      if (disconnected) ctx.fillRect(Math.floor(start + i * wide), bbox.top, Math.ceil(wide), bbox.height);
    });
  }
}

/** Return the full minutes to label; the first and last 15 seconds leave no room for a label. */
function minutes(plot) {
  const { min, max } = plot.scales.x;
  const first = Math.ceil((min + 15) / 60) * 60;
  return Array.from({ length: Math.max(0, Math.ceil((max - 15 - first) / 60)) }, (_, i) => first + i * 60);
}

/**
 * Draw bars on top of those of the series before. uPlot's own stacking would lose a single event among thousands.
 * @param {any} plot
 * @param {number} series
 */
function stacked(plot, series) {
  const { bbox, data, scales } = plot;
  const min = MIN_HEIGHT * devicePixelRatio;
  const tall = (value) => (value ? Math.max(min, (value / scales.y.max) * bbox.height) : 0);
  const wide = bbox.width / data[0].length;
  const bars = new Path2D();
  data[series].forEach((value, i) => {
    if (!value) return;
    let ground = bbox.top + bbox.height;
    for (let below = 1; below < series; below += 1) ground -= tall(data[below][i]);
    const height = tall(value);
    const [from, to] = [Math.round(bbox.left + i * wide), Math.round(bbox.left + (i + 1 - BAR_GAP) * wide)];
    bars.rect(from, ground - height, Math.max(1, to - from), height);
  });
  return { fill: bars, stroke: null, clip: null, band: null, gaps: null, flags: 0 };
}
