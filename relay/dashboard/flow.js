/**
 * Events in each second, by level: a strip below the header.
 *
 * Invariants: what is loud stands on the ground, so that its height can be read, and a single event among thousands is
 * still seen; seconds in which the page heard nothing are marked, since none came is not the same as none was heard.
 */

import { Chart, roundUp } from "/assets/chart.js";
import { element } from "/assets/dom.js";
import { SECONDS } from "/assets/rate.js";
import { STRINGS } from "/assets/strings.js";
import { clock, count } from "/assets/times.js";

/** From the ground up: what it counts, and its colour. */
const LAYERS = [
  { kind: "CRITICAL", colour: "--level-critical" },
  { kind: "ERROR", colour: "--level-error" },
  { kind: "WARN", colour: "--level-warn" },
  { kind: "INFO", colour: "--level-info" },
  { kind: "DEBUG", colour: "--level-debug" },
  { kind: "", colour: "--level-none" },
];

/** Each second has at least so many pixels: a narrow window shows fewer of them. */
const PIXELS = 3;
const SHORT = 60;

/** Who wants less motion gets a strip that moves on only so often; the numbers beside it do not wait. */
const CALM_MS = 10_000;
const CALM = window.matchMedia("(prefers-reduced-motion: reduce)");

/** As style.css has it: room for bars only. */
const SLIM = window.matchMedia("(max-width: 560px)");

/** The least height of what is not nothing, and the air between two seconds. */
const LEAST = 1.5;
const AIR = 0.2;

const sum = (values) => values.reduce((all, value) => all + value, 0);

export class Flow {
  /** @type {number[][]} */ #layers = [];
  /** @type {boolean[]} */ #deaf = [];
  /** @type {number[]} */ #seconds = [];
  #drawnAt = -Infinity;
  #chart;

  /** @param {HTMLElement} box */
  constructor(box) {
    this.#chart = new Chart(
      box,
      () => this.#options(),
      (index) => this.#tell(index),
    );
    SLIM.addEventListener("change", () => this.#chart.rebuild());
  }

  /** @param {import("/assets/rate.js").Rate} rate @param {number} now UNIX milliseconds */
  show(rate, now) {
    if (document.hidden || (CALM.matches && now - this.#drawnAt < CALM_MS && now >= this.#drawnAt)) return;
    this.#drawnAt = now;
    const width = this.#chart.box.clientWidth;
    const shown = Math.max(SHORT, Math.min(SECONDS, Math.floor(width / PIXELS / SHORT) * SHORT));
    const end = Math.floor(now / 1000);
    this.#seconds = Array.from({ length: shown }, (_, i) => end - shown + i);
    this.#layers = LAYERS.map(({ kind }) => rate.seconds(now, [kind]).slice(-shown));
    this.#deaf = rate.deaf(now).slice(-shown);
    this.#chart.show([this.#seconds, ...this.#layers], this.#label());
  }

  #label() {
    const shown = this.#seconds.length;
    const span = STRINGS.flow.span(shown);
    const all = LAYERS.map(({ kind }, i) => [sum(this.#layers[i]), STRINGS.flow.levels[kind]]).filter(([number]) => number > 0);
    const most = this.#most();
    if (most === 0) return STRINGS.flow.none(span);
    const parts = all.map(([number, name]) => `${count(number)} ${name}`).join(", ");
    return STRINGS.flow.label(span, parts, count(most));
  }

  #most() {
    return Math.max(...this.#seconds.map((_, i) => this.#total(i)));
  }

  #total(index) {
    return sum(this.#layers.map((layer) => layer[index]));
  }

  #tell(index) {
    const at = clock(this.#seconds[index] * 1000).slice(0, 8);
    const total = this.#total(index);
    const lines = LAYERS.map(({ kind, colour }, i) => {
      const number = this.#layers[i][index];
      if (number === 0) return null;
      const swatch = element("i", "chart-swatch");
      swatch.style.background = `var(${colour})`;
      return element("p", "", swatch, element("b", "number", count(number)), ` ${STRINGS.flow.levels[kind]}`);
    });
    const deaf = this.#deaf[index] ? element("p", "", STRINGS.flow.deaf) : null;
    const head = element("p", "chart-when", STRINGS.flow.moment(at, total, count(total)));
    return [head, deaf, ...lines].filter((line) => line !== null);
  }

  #options() {
    const colour = (name) => () => this.#chart.colour(name);
    const axis = { stroke: colour("--soft"), font: "11px sans-serif", show: !SLIM.matches, ticks: { show: false } };
    return {
      padding: SLIM.matches ? [2, 0, 0, 0] : [6, 0, 0, 0],
      cursor: { points: { show: false } },
      scales: { x: { range: (_, least, most) => [least - 0.5, most + 0.5] }, y: { range: () => [0, roundUp(this.#most(), 4)] } },
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
      hooks: { drawClear: [(plot) => this.#markDeaf(plot)] },
    };
  }

  #markDeaf(plot) {
    const { ctx, bbox } = plot;
    ctx.fillStyle = this.#chart.colour("--level-deaf");
    const [start, wide] = [plot.valToPos(this.#seconds[0] - 0.5, "x", true), bbox.width / this.#seconds.length];
    this.#deaf.forEach((deaf, i) => {
      if (deaf) ctx.fillRect(Math.floor(start + i * wide), bbox.top, Math.ceil(wide), bbox.height);
    });
  }
}

/** Whole minutes; the last ten seconds have no room for one. */
function minutes(plot) {
  const { min, max } = plot.scales.x;
  const first = Math.ceil((min + 15) / 60) * 60;
  return Array.from({ length: Math.max(0, Math.ceil((max - 15 - first) / 60)) }, (_, i) => first + i * 60);
}

/**
 * Bars that stand on those of the series before; uPlot's own would stack sums, and lose a single event among thousands.
 * @param {any} plot
 * @param {number} series
 */
function stacked(plot, series) {
  const { bbox, data, scales } = plot;
  const least = LEAST * devicePixelRatio;
  const tall = (value) => (value ? Math.max(least, (value / scales.y.max) * bbox.height) : 0);
  const wide = bbox.width / data[0].length;
  const bars = new Path2D();
  data[series].forEach((value, i) => {
    if (!value) return;
    let ground = bbox.top + bbox.height;
    for (let below = 1; below < series; below += 1) ground -= tall(data[below][i]);
    const height = tall(value);
    const [from, to] = [Math.round(bbox.left + i * wide), Math.round(bbox.left + (i + 1 - AIR) * wide)];
    bars.rect(from, ground - height, Math.max(1, to - from), height);
  });
  return { fill: bars, stroke: null, clip: null, band: null, gaps: null, flags: 0 };
}
