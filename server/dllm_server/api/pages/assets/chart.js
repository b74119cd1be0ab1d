/** How sure the model was of what was still masked, over the forward passes, and what each committed. */

import { drawn, element } from "./dom.js";
import { courseOf, shortNumber } from "./recording.js";

const TOP = 8;
const HEIGHT = 112;
const BARS = 26;
const LEFT = 26;

export class Chart {
  /** @param {import("./recording.js").Recording} recording @param {(shown: number) => void} seek */
  constructor(recording, seek) {
    this.recording = recording;
    this.svg = drawn("svg", { class: "chart", role: "img", "aria-label": "Confidence over forward passes" });
    this.cursor = drawn("line", { class: "cursor", y1: TOP, y2: TOP + HEIGHT + BARS });
    this.legend = element("p", { class: "legend" });
    this.root = element("figure", { class: "confidence" }, this.legend, this.svg);
    this.drawnForwards = -1;
    this.shown = 0;
    this.width = 640;
    new ResizeObserver(([seen]) => this.#resize(seen.contentRect.width)).observe(this.root);
    /** @type {ReturnType<typeof courseOf>} */
    this.course = [];
    this.svg.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      const box = this.svg.getBoundingClientRect();
      const x = event.clientX - box.left;
      seek(Math.round(((x - LEFT) / (this.width - LEFT)) * this.course.length + 0.5));
    });
  }

  /** @param {number} width */
  #resize(width) {
    if (width === 0 || width === this.width) return;
    this.width = width;
    this.drawnForwards = -1;
    this.draw(this.shown);
  }

  /** @param {number} shown forward passes */
  draw(shown) {
    this.shown = shown;
    const count = this.recording.forwards.length;
    if (count !== this.drawnForwards) {
      this.drawnForwards = count;
      this.course = courseOf(this.recording);
      this.#drawCourse();
    }
    const x = this.#x(Math.max(shown, 1));
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.#tell(shown);
  }

  /** @param {number} shown */
  #tell(shown) {
    const now = this.course[shown - 1];
    const spread = now === undefined ? null : now.spread;
    /** @param {string} kind @param {string} name @param {string} value */
    const entry = (kind, name, value) =>
      element(
        "span",
        { class: `entry ${kind}` },
        element("span", { class: "swatch", "aria-hidden": "true" }),
        `${name} `,
        element("b", { text: value }),
      );
    this.legend.replaceChildren(
      element("span", { class: "title", text: "Confidence of masked positions" }),
      entry("surest", "surest", shortNumber(spread?.surest)),
      entry("mean", "mean", shortNumber(spread?.mean)),
      entry("least", "least sure", shortNumber(spread?.least)),
      entry(
        "committed",
        "committed",
        now === undefined ? "–" : String(now.committed) + (now.edited ? ` + ${now.edited} edited` : ""),
      ),
      ...(this.recording.threshold === null
        ? []
        : [entry("gate", "threshold", shortNumber(this.recording.threshold))]),
    );
  }

  #drawCourse() {
    const course = this.course;
    const points = course.flatMap((point, index) =>
      point.spread === null ? [] : [{ x: this.#x(index + 1), ...point.spread }],
    );
    /** @param {"surest" | "mean" | "least"} kind */
    const line = (kind) =>
      drawn("polyline", {
        class: `line ${kind}`,
        points: points.map((point) => `${point.x},${this.#y(point[kind])}`).join(" "),
      });
    const band = [
      ...points.map((point) => `${point.x},${this.#y(point.surest)}`),
      ...[...points].reverse().map((point) => `${point.x},${this.#y(point.least)}`),
    ];
    const most = Math.max(1, ...course.map((point) => point.committed));
    const step = (this.width - LEFT) / Math.max(course.length, 1);
    const base = TOP + HEIGHT + BARS;
    const bars = course.map((point, index) => {
      const height = (point.committed / most) * (BARS - 6);
      return drawn("rect", {
        class: "bar",
        x: this.#x(index + 1) - Math.max(step * 0.7, 1) / 2,
        y: base - height,
        width: Math.max(step * 0.7, 1),
        height,
      });
    });
    const edges = course.flatMap((point, index) =>
      index > 0 && course[index - 1].start !== point.start ? [this.#x(index + 0.5)] : [],
    );
    const grid = [0, 0.5, 1].flatMap((value) => [
      drawn("line", { class: "grid", x1: LEFT, x2: this.width, y1: this.#y(value), y2: this.#y(value) }),
      drawn("text", {
        class: "axis",
        x: LEFT - 5,
        y: this.#y(value) + 3,
        "text-anchor": "end",
        text: String(value),
      }),
    ]);
    const gate = this.recording.threshold;
    this.svg.replaceChildren(
      ...grid,
      ...edges.map((x) => drawn("line", { class: "edge", x1: x, x2: x, y1: TOP, y2: base })),
      drawn("polygon", { class: "band", points: band.join(" ") }),
      ...(gate === null
        ? []
        : [drawn("line", { class: "gate", x1: LEFT, x2: this.width, y1: this.#y(gate), y2: this.#y(gate) })]),
      line("least"),
      line("mean"),
      line("surest"),
      ...(points.length === 1
        ? ["least", "mean", "surest"].map((kind) =>
            drawn("circle", {
              class: `dot ${kind}`,
              cx: points[0].x,
              cy: this.#y(points[0][/** @type {"mean"} */ (kind)]),
              r: 3,
            }),
          )
        : []),
      ...bars,
      drawn("text", { class: "axis", x: LEFT, y: base + 13, text: "forward 1" }),
      ...(course.length > 1
        ? [
            drawn("text", {
              class: "axis",
              x: this.width,
              y: base + 13,
              "text-anchor": "end",
              text: String(course.length),
            }),
          ]
        : []),
      this.cursor,
    );
    const last = points[points.length - 1];
    const words =
      last === undefined
        ? ""
        : `; at the last, surest ${shortNumber(last.surest)}, mean ${shortNumber(last.mean)}, least sure ${shortNumber(last.least)}`;
    this.svg.setAttribute(
      "aria-label",
      `Confidence of masked positions over ${course.length} forward passes${words}`,
    );
  }

  /** @param {number} number of a forward pass, from 1 */
  #x(number) {
    return LEFT + ((number - 0.5) / Math.max(this.course.length, 1)) * (this.width - LEFT);
  }

  /** @param {number} value */
  #y(value) {
    return TOP + (1 - value) * HEIGHT;
  }
}
