/** Two settings on one prompt: what each took, side by side. */

import { time } from "./answer.js";
import { element } from "./dom.js";

/** @param {import("./answer.js").Answer} a @param {import("./answer.js").Answer} b @param {Node} action */
export function comparison(a, b, action) {
  const [first, second] = [a.recording, b.recording];
  if (
    first.ended === "failed" ||
    second.ended === "failed" ||
    !first.forwards.length ||
    !second.forwards.length
  )
    return null;
  const isSame = first.text === second.text;
  return element(
    "section",
    { class: "card comparison", "aria-label": "Comparison" },
    element("h2", { text: sentence(first, second) }),
    action,
    bars("Forward passes", first.forwards.length, second.forwards.length, String),
    bars("Time", first.seconds ?? 0, second.seconds ?? 0, time),
    element("p", {
      class: isSame ? "same" : "differs",
      text: isSame ? "Both give the same answer." : "The answers differ.",
    }),
  );
}

/** @param {import("./recording.js").Recording} first @param {import("./recording.js").Recording} second */
function sentence(first, second) {
  const forwards = first.forwards.length / second.forwards.length;
  if (forwards === 1) return "A and B take as many forward passes.";
  const [better, times] = forwards > 1 ? ["B", forwards] : ["A", 1 / forwards];
  return `${better} takes ${times < 10 ? times.toFixed(1) : Math.round(times)}× fewer forward passes.`;
}

/** @param {string} name @param {number} a @param {number} b @param {(value: number) => string} words */
function bars(name, a, b, words) {
  const most = Math.max(a, b) || 1;
  /** @param {string} side @param {number} value */
  const bar = (side, value) => {
    const fill = element("span", { class: `fill ${side}` });
    fill.style.width = `${Math.max((value / most) * 100, 1)}%`;
    return element(
      "div",
      { class: "bar-row" },
      element("span", { class: `side ${side}`, text: side }),
      element("span", { class: "track", "aria-hidden": "true" }, fill),
      element("b", { text: words(value) }),
    );
  };
  return element(
    "div",
    { class: "bars", role: "group", "aria-label": name },
    element("p", { text: name }),
    bar("A", a),
    bar("B", b),
  );
}

/**
 * What the answers of this page took, the newest first.
 * @param {import("./answer.js").Answer[]} answers
 */
export function runsList(answers) {
  const done = answers
    .filter((answer) => answer.recording.ended !== null && answer.recording.forwards.length > 0)
    .slice(-8)
    .reverse();
  const most = Math.max(1, ...done.map((answer) => answer.recording.forwards.length));
  return done.map(({ recording }) => {
    const fill = element("span", { class: "fill" });
    fill.style.width = `${Math.max((recording.forwards.length / most) * 100, 1)}%`;
    const { length } = recording.forwards;
    return element(
      "li",
      {},
      element("span", { class: "run-label", text: recording.label }),
      element("span", { class: "track", "aria-hidden": "true" }, fill),
      element("span", {
        class: "run-counts",
        text: `${length} ${length === 1 ? "forward" : "forwards"} · ${time(recording.seconds ?? 0)}`,
      }),
    );
  });
}
