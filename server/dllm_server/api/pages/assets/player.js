/** Shows a recording while it grows, and replays it forward by forward at any speed. */

import { Canvas } from "./canvas.js";
import { Chart } from "./chart.js";
import { drawn, element } from "./dom.js";
import { frameAt } from "./recording.js";

/** Forward passes a second; 0 takes the time they took. */
const SPEEDS = [
  [0, "as it happened"],
  [1, "1 forward/s"],
  [3, "3 forwards/s"],
  [8, "8 forwards/s"],
  [20, "20 forwards/s"],
  [60, "60 forwards/s"],
];
const MOST_BEHIND_SECONDS = 4; // of a live answer
/** Paths in a square of 16. */
const ICONS = {
  first: "M3 3h2v10H3zM13 3v10L6 8z",
  back: "M11 3v10L4 8z",
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  on: "M5 3v10l7-5z",
  last: "M11 3h2v10h-2zM3 3v10l7-5z",
};

export class Player {
  /**
   * @param {import("./recording.js").Recording} recording
   * @param {{speed?: number, onFrame?: (shown: number) => void}} [options]
   */
  constructor(recording, options = {}) {
    this.recording = recording;
    this.onFrame = options.onFrame ?? (() => {});
    this.shown = 0;
    this.position = 0; // with its fraction
    this.isPlaying = false;
    this.before = 0;
    this.canvas = new Canvas(recording);
    this.chart = new Chart(recording, (shown) => this.#seek(shown));
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: 0,
      value: 0,
      "aria-label": "Forward pass shown",
      on: { input: () => this.#seek(Number(this.slider.value)) },
    });
    this.where = element("output", { class: "where" });
    this.toggle = this.#button("Play", "play", () => (this.isPlaying ? this.pause() : this.play()));
    this.speed = element(
      "select",
      { "aria-label": "Speed", on: { change: () => this.#begin() } },
      ...SPEEDS.map(([value, name]) => element("option", { value, text: name })),
    );
    this.speed.value = String(options.speed ?? 8);
    const controls = element(
      "div",
      { class: "scrubber", role: "group", "aria-label": "Replay" },
      this.#button("First", "first", () => this.#seek(0)),
      this.#button("Back one forward pass", "back", () => this.#seek(this.shown - 1)),
      this.toggle,
      this.#button("On one forward pass", "on", () => this.#seek(this.shown + 1)),
      this.#button("Last", "last", () => this.#seek(this.recording.forwards.length)),
      this.slider,
      this.where,
      this.speed,
    );
    this.root = element("div", { class: "player" }, this.canvas.root, this.chart.root, controls);
    this.draw();
  }

  /** New forward passes have come, or the answer has ended. */
  grown() {
    this.slider.max = String(this.recording.forwards.length);
    if (!this.isPlaying) this.draw();
  }

  play() {
    if (this.recording.ended !== null && this.shown >= this.recording.forwards.length) this.position = 0;
    this.isPlaying = true;
    this.#name("Pause", "pause");
    this.#begin();
    requestAnimationFrame((now) => this.#tick(now));
  }

  pause() {
    this.isPlaying = false;
    this.#name("Play", "play");
    this.draw();
  }

  /** Everything at once, and stop. */
  finish() {
    this.#seek(this.recording.forwards.length);
  }

  draw() {
    const count = this.recording.forwards.length;
    this.shown = Math.max(0, Math.min(Math.floor(this.position), count));
    this.canvas.draw(frameAt(this.recording, this.shown), this.shown);
    this.chart.draw(this.shown);
    this.slider.max = String(count);
    this.slider.value = String(this.shown);
    const phase = this.shown > 0 ? this.recording.forwards[this.shown - 1].phase : "";
    this.slider.setAttribute(
      "aria-valuetext",
      `forward ${this.shown} of ${count}${phase ? `, ${phase}` : ""}`,
    );
    this.where.textContent = `${this.shown} / ${count}${phase ? ` · ${phase}` : ""}`;
    this.onFrame(this.shown);
  }

  /** Time goes on from what is shown now. */
  #begin() {
    this.before = performance.now();
    this.clock = this.shown > 0 ? this.recording.forwards[this.shown - 1].at : 0;
  }

  /** @param {number} now */
  #tick(now) {
    if (!this.isPlaying) return;
    const seconds = Math.max(now - this.before, 0) / 1000;
    this.before = Math.max(now, this.before);
    const { forwards, ended } = this.recording;
    const speed = Number(this.speed.value);
    const isLive = ended === null;
    if (speed === 0) this.#followTime(seconds, isLive);
    else {
      const behind = forwards.length - this.position;
      this.position = Math.min(
        this.position + seconds * (isLive ? Math.max(speed, behind / MOST_BEHIND_SECONDS) : speed),
        forwards.length,
      );
    }
    if (Math.floor(this.position) !== this.shown || (!isLive && this.position >= forwards.length))
      this.draw();
    if (!isLive && this.position >= forwards.length) this.pause();
    else requestAnimationFrame((next) => this.#tick(next));
  }

  /** @param {number} seconds @param {boolean} isLive */
  #followTime(seconds, isLive) {
    const { forwards } = this.recording;
    this.clock = (this.clock ?? 0) + seconds * 1000;
    const due = forwards.filter((forward) => forward.at <= /** @type {number} */ (this.clock)).length;
    this.position = isLive ? forwards.length : due;
  }

  /** @param {number} shown */
  #seek(shown) {
    this.position = Math.max(0, Math.min(shown, this.recording.forwards.length));
    this.pause();
  }

  /** @param {string} name @param {keyof typeof ICONS} icon @param {() => void} press */
  #button(name, icon, press) {
    return element(
      "button",
      { type: "button", class: "icon", "aria-label": name, title: name, on: { click: press } },
      picture(icon),
    );
  }

  /** @param {string} name @param {keyof typeof ICONS} icon */
  #name(name, icon) {
    this.toggle.replaceChildren(picture(icon));
    this.toggle.setAttribute("aria-label", name);
    this.toggle.title = name;
  }
}

/** @param {keyof typeof ICONS} icon */
function picture(icon) {
  return drawn(
    "svg",
    { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    drawn("path", { d: ICONS[icon], fill: "currentColor" }),
  );
}
