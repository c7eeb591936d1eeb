/** A gateway's latencies as a line. */

import { setAttribute } from "/assets/dom.js";
import { latencyText } from "/assets/gateways.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 64;
const HEIGHT = 14;

/**
 * The path of a line that ends at the right, a point for each value, from zero up.
 * @param {number[]} values
 * @returns {string} empty with fewer than two values
 */
function path(values) {
  if (values.length < 2) return "";
  const most = Math.max(...values, 1e-9);
  const step = WIDTH / (values.length - 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)} ${(HEIGHT - 1 - (value / most) * (HEIGHT - 2)).toFixed(1)}`);
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
    const least = latencyText(Math.min(...values));
    const most = latencyText(Math.max(...values));
    const title = `Latency in ${values.length} reports: ${least} to ${most}`;
    if (this.#title.textContent !== title) this.#title.textContent = title;
    setAttribute(this.#path, "d", path(values));
  }
}
