/** Bars and lines of the engine page. */

import { drawn, element } from "./dom.js";

/**
 * @typedef {{name: string, value: number, kind: string, words: string, hint?: string}} Part
 *
 * One bar of parts, with their names below; `mark` is a place on it, as a share of the whole.
 * @param {string} label @param {Part[]} parts @param {number} whole @param {{share: number, words: string}} [mark]
 */
export function stackedBar(label, parts, whole, mark) {
  const bar = element("div", {
    class: "stack",
    role: "img",
    "aria-label": `${label}: ${parts.map((part) => `${part.name} ${part.words}`).join(", ")}`,
  });
  for (const part of parts) {
    const piece = element("span", { class: `piece ${part.kind}` });
    piece.style.width = `${whole > 0 ? (part.value / whole) * 100 : 0}%`;
    bar.append(piece);
  }
  if (mark !== undefined) {
    const line = element("span", { class: "mark" });
    line.style.left = `${Math.min(mark.share, 1) * 100}%`;
    bar.append(line);
  }
  const names = parts.map((part) =>
    element(
      "li",
      {},
      element("span", { class: `swatch ${part.kind}`, "aria-hidden": "true" }),
      element("span", { text: part.name }),
      element("b", { text: part.words }),
      part.hint ? element("small", { text: part.hint }) : null,
    ),
  );
  if (mark !== undefined)
    names.push(
      element(
        "li",
        {},
        element("span", { class: "swatch mark", "aria-hidden": "true" }),
        element("span", { text: mark.words }),
      ),
    );
  return element("div", { class: "stacked" }, bar, element("ul", { class: "names" }, ...names));
}

const WIDTH = 640;
const HEIGHT = 150;

/**
 * A column for each step, its phases on one another, under the line of the budget where that is in sight.
 * @param {{tokens: Record<string, number>, token_budget: number}[]} steps @param {string[]} phases @param {number} columns
 */
export function stepColumns(steps, phases, columns) {
  const totals = steps.map((step) => phases.reduce((sum, phase) => sum + (step.tokens[phase] ?? 0), 0));
  const most = Math.max(1, ...totals) * 1.1;
  const wide = WIDTH / columns;
  const pieces = steps.flatMap((step, place) => {
    let base = HEIGHT;
    const x = (columns - steps.length + place) * wide;
    return phases.map((phase, kind) => {
      const height = ((step.tokens[phase] ?? 0) / most) * HEIGHT;
      base -= height;
      return drawn("rect", {
        class: `column owner${kind}`,
        x: x + wide * 0.1,
        y: base,
        width: wide * 0.8,
        height,
      });
    });
  });
  const budget = steps.length > 0 ? steps[steps.length - 1].token_budget : 0;
  const line =
    budget > 0 && budget <= most
      ? [
          drawn("line", {
            class: "limit",
            x1: 0,
            x2: WIDTH,
            y1: HEIGHT * (1 - budget / most),
            y2: HEIGHT * (1 - budget / most),
          }),
        ]
      : [];
  const words =
    steps.length === 0
      ? "No step yet"
      : `The last ${steps.length} steps: ${Math.min(...totals)} to ${Math.max(...totals)} query tokens`;
  return drawn(
    "svg",
    {
      class: "plot",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": words,
    },
    ...pieces,
    ...line,
    drawn("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
  );
}

/** @param {string} label @param {number[]} values @param {number} columns */
export function sparkLine(label, values, columns) {
  const most = Math.max(1, ...values) * 1.1;
  const points = values.map(
    (value, place) =>
      `${((columns - values.length + place) / (columns - 1)) * WIDTH},${HEIGHT * (1 - value / most)}`,
  );
  const first = ((columns - values.length) / (columns - 1)) * WIDTH;
  return drawn(
    "svg",
    {
      class: "plot",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    drawn("polygon", {
      class: "area",
      points: values.length === 0 ? "" : `${first},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`,
    }),
    drawn("polyline", { class: "spark", points: points.join(" ") }),
    drawn("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
  );
}
