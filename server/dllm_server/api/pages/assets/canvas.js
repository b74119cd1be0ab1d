/** The canvas: a row of cells for each block, and beside it the forward passes that the block took. */

import { drawn, element } from "./dom.js";

/** Upper bounds of the shades of confidence, from unsure to sure. */
const SHADES = [0.3, 0.5, 0.7, 0.9];
const LINE_BREAK = "\u23CE";
const SPECIAL = "\u2205";

export class Canvas {
  /** @param {import("./recording.js").Recording} recording */
  constructor(recording) {
    this.recording = recording;
    this.root = element("div", {
      class: "canvas",
      role: "img",
      "aria-label": "Canvas: nothing committed yet",
    });
    if (recording.threshold !== null) this.root.style.setProperty("--threshold", String(recording.threshold));
    /** @type {{root: any, ticks: any, count: any, ticked: number, start: number, end: number}[]} */
    this.rows = [];
    /** @type {any[]} */
    this.cells = [];
    /** @type {string[]} */
    this.drawn = [];
    for (let position = 0; position < recording.length; position += 1)
      this.cells.push(element("span", { class: "cell" }));
  }

  /** @param {import("./recording.js").Frame} frame @param {number} shown forward passes */
  draw(frame, shown) {
    this.#layRows(frame.blocks);
    frame.cells.forEach((cell, position) => this.#drawCell(cell, position));
    for (const [number, row] of this.rows.entries()) {
      const block = frame.blocks[number];
      const isCurrent = number === frame.blocks.length - 1;
      this.#drawGutter(row, block);
      row.root.classList.toggle("is-current", isCurrent && this.recording.ended === null);
      const cells = frame.cells.slice(row.start, row.end);
      row.root.hidden = cells.length > 0 && cells.every((cell) => cell.state === "after");
    }
    const total = this.recording.length;
    this.root.setAttribute(
      "aria-label",
      `Canvas after ${shown} forward passes: ${frame.committed} of ${total} positions committed`,
    );
  }

  /**
   * Rows follow the blocks that have begun; behind them blocks of the usual length.
   * @param {import("./recording.js").Block[]} blocks
   */
  #layRows(blocks) {
    /** @type {[number, number][]} */
    const bounds = blocks.map((block) => [block.start, block.end]);
    let start = bounds.length === 0 ? 0 : bounds[bounds.length - 1][1];
    while (start < this.recording.length) {
      const end = Math.min(start + this.recording.blockLength, this.recording.length);
      bounds.push([start, end]);
      start = end;
    }
    const isSame =
      bounds.length === this.rows.length &&
      bounds.every(
        ([first, last], number) => this.rows[number].start === first && this.rows[number].end === last,
      );
    if (isSame) return;
    this.rows = bounds.map(([first, last], number) => {
      const ticks = drawn("svg", { class: "ticks", "aria-hidden": "true" });
      const count = element("span", { class: "count" });
      const gutter = element(
        "div",
        { class: "gutter" },
        element("span", { class: "name", text: `Block ${number + 1}` }),
        count,
        ticks,
      );
      const line = element(
        "div",
        { class: "cells", "aria-hidden": "true" },
        ...this.cells.slice(first, last),
      );
      return {
        root: element("div", { class: "block" }, gutter, line),
        ticks,
        count,
        ticked: -1,
        start: first,
        end: last,
      };
    });
    this.root.replaceChildren(...this.rows.map((row) => row.root));
  }

  /** @param {import("./recording.js").Cell} cell @param {number} position */
  #drawCell(cell, position) {
    const shade =
      cell.confidence === null
        ? ""
        : SHADES.filter((bound) => /** @type {number} */ (cell.confidence) >= bound).length;
    const key = `${cell.state}|${cell.text}|${cell.confidence}`;
    if (this.drawn[position] === key) return;
    this.drawn[position] = key;
    const node = this.cells[position];
    node.className = `cell ${cell.state}${cell.isSpecial ? " special" : ""}`;
    node.dataset.shade = cell.state === "masked" || cell.state === "waiting" ? "" : String(shade);
    node.style.setProperty("--sure", String(cell.confidence ?? 0));
    const text = cell.isSpecial ? SPECIAL : cell.text.replaceAll("\n", LINE_BREAK).replaceAll("\t", "\u21E5");
    node.textContent = cell.state === "masked" || cell.state === "waiting" ? "" : text;
    node.title = cell.confidence === null ? "" : `position ${position}: ${cell.confidence.toFixed(3)}`;
  }

  /**
   * A tick for each forward pass of the block, tall where it refreshed or prefilled.
   * @param {any} row @param {import("./recording.js").Block | undefined} block
   */
  #drawGutter(row, block) {
    const phases = block === undefined ? [] : block.phases;
    if (row.ticked === phases.length) return;
    row.ticked = phases.length;
    row.count.textContent =
      phases.length === 0 ? "" : `${phases.length} ${phases.length === 1 ? "forward" : "forwards"}`;
    const width = 96;
    const step = Math.min(5, width / Math.max(phases.length, 1));
    row.ticks.setAttribute("viewBox", `0 0 ${width} 10`);
    row.ticks.replaceChildren(
      ...phases.map((/** @type {string} */ phase, /** @type {number} */ place) => {
        const isLong = phase === "refresh" || phase === "prefill";
        return drawn("rect", {
          class: isLong ? "long" : "short",
          x: place * step,
          y: isLong ? 0 : 4,
          width: Math.max(step - 2, 1),
          height: isLong ? 10 : 6,
          rx: 1,
        });
      }),
    );
  }
}
