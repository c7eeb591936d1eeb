/**
 * Latencies of a gateway: as a sparkline in its tile, and as a chart in its history.
 *
 * The sparkline is an SVG path, because a thousand tiles cannot each afford a canvas with listeners.
 */

import { Chart, roundUp } from "/assets/chart.js";
import { element, setAttribute } from "/assets/dom.js";
import { latencyText } from "/assets/gateways.js";
import { statusMark } from "/assets/status.js";
import { STRINGS } from "/assets/strings.js";
import { clock, fullTime } from "/assets/times.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 64;
const HEIGHT = 14;

/**
 * Return the SVG path of a sparkline that starts at zero and ends at the right edge.
 * @param {number[]} values
 * @returns {string} empty for fewer than two values
 */
function path(values) {
  if (values.length < 2) return "";
  const max = Math.max(...values, 1e-9);
  const step = WIDTH / (values.length - 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)} ${(HEIGHT - 1 - (value / max) * (HEIGHT - 2)).toFixed(1)}`);
  return `M${points.join("L")}`;
}

export class LatencyLine {
  #title = document.createElementNS(SVG, "title");
  #path = document.createElementNS(SVG, "path");
  root = document.createElementNS(SVG, "svg");

  constructor() {
    setAttribute(this.root, "class", "latency-line");
    setAttribute(this.root, "viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    setAttribute(this.root, "preserveAspectRatio", "none");
    setAttribute(this.root, "role", "img");
    this.root.append(this.#title, this.#path);
  }

  /** @param {number[]} values milliseconds, oldest first */
  show(values) {
    setAttribute(this.root, "hidden", values.length < 2 ? "" : null);
    if (values.length < 2) return;
    const min = latencyText(Math.min(...values));
    const max = latencyText(Math.max(...values));
    const title = STRINGS.gateways.latency(values.length, min, max);
    if (this.#title.textContent !== title) this.#title.textContent = title;
    setAttribute(this.#path, "d", path(values));
  }
}

const DAY_S = 86_400;

/** Background colours for the times when the gateway was not healthy. */
const WASHES = { UNHEALTHY: "--red-wash", RECOVERING: "--violet-wash", DEGRADED: "--amber-wash" };

/**
 * @typedef {object} Report
 * @property {number} at UNIX milliseconds
 * @property {number} latency milliseconds; NaN if it was not measured
 * @property {string} status empty if the event does not change it
 */

export class LatencyChart {
  root = element("div", "chart history-latency");
  /** @type {Report[]} */ #reports = [];
  #chart = new Chart(
    this.root,
    () => this.#options(),
    (index) => this.#describe(index),
  );

  /** @param {Report[]} reports in any order; with fewer than two latencies the chart is hidden */
  show(reports) {
    this.#reports = reports.filter(({ at }) => Number.isFinite(at)).sort((a, b) => a.at - b.at);
    const values = this.#reports.map(({ latency }) => latency).filter(Number.isFinite);
    this.root.hidden = values.length < 2;
    if (this.root.hidden) return;
    const [min, max, last] = [Math.min(...values), Math.max(...values), values.at(-1)].map(latencyText);
    const [from, to] = [this.#reports[0].at, this.#reports.at(-1).at].map(fullTime);
    const label = STRINGS.history.latency(values.length, from, to, min, max, last);
    const times = this.#reports.map(({ at }) => at / 1000);
    this.#chart.show([times, this.#reports.map(({ latency }) => (Number.isFinite(latency) ? latency : null))], label);
  }

  #describe(index) {
    const { at, latency, status } = this.#reports[index];
    const parts = [element("p", "chart-when", fullTime(at)), element("p", "", latencyText(latency) || STRINGS.history.unmeasured)];
    if (status) {
      const mark = statusMark();
      mark.set(status);
      parts.push(mark.root);
    }
    return parts;
  }

  #options() {
    const colour = (name) => () => this.#chart.colour(name);
    const axis = { stroke: colour("--soft"), font: "11px sans-serif", ticks: { show: false } };
    const max = () => Math.max(0, ...this.#reports.map(({ latency }) => latency).filter(Number.isFinite));
    return {
      padding: [8, 14, 0, 0],
      cursor: { points: { size: 8, width: 2, fill: colour("--accent"), stroke: colour("--pane") } },
      scales: { y: { range: () => [0, roundUp(max(), 1)] } },
      axes: [
        { ...axis, size: 18, gap: 3, space: 80, grid: { show: false }, values: timesOf },
        {
          ...axis,
          size: 56,
          gap: 6,
          grid: { stroke: colour("--line"), width: 1 },
          splits: ({ scales }) => [0, scales.y.max / 2, scales.y.max],
          values: (_, at) => at.map((value) => (value === 0 ? "0" : latencyText(value))),
        },
      ],
      series: [{}, { stroke: colour("--accent"), width: 1.5, points: { size: 5, fill: colour("--pane") } }],
      hooks: { drawClear: [(plot) => this.#wash(plot)] },
    };
  }

  #wash(plot) {
    const { ctx, bbox } = plot;
    const states = this.#reports.filter(({ status }) => status);
    states.forEach(({ at, status }, i) => {
      if (!(status in WASHES)) return;
      const ends = [at, states[i + 1]?.at ?? this.#reports.at(-1).at];
      const [from, to] = ends.map((end) => Math.round(plot.valToPos(end / 1000, "x", true)));
      ctx.fillStyle = this.#chart.colour(WASHES[status]);
      ctx.fillRect(from, bbox.top, Math.max(devicePixelRatio, to - from), bbox.height);
    });
  }
}

/** Format the labels of the time axis as short as possible while they still differ. */
function timesOf(plot, seconds, _axis, _space, step) {
  const { min, max } = plot.scales.x;
  return seconds.map((at) => {
    const [day, time] = [fullTime(at * 1000).slice(5, 10), clock(at * 1000).slice(0, step < 60 ? 8 : 5)];
    return max - min > DAY_S ? (step < DAY_S ? `${day} ${time}` : day) : time;
  });
}
