/**
 * One answer as it came: what each forward pass left on the canvas. Everything that is drawn follows from it.
 *
 * @typedef {object} Forward
 * @property {number} at milliseconds since the request was sent
 * @property {number} start generated tokens before the block
 * @property {string} phase
 * @property {number[]} ids -1 is masked
 * @property {(string | null)[]} texts
 * @property {(number | null)[]} confidence
 *
 * @typedef {object} Recording
 * @property {string} model
 * @property {string} prompt
 * @property {string} label its settings in a few words
 * @property {number | null} threshold the confidence from which tokens are committed, where there is one
 * @property {number} length cells of the canvas
 * @property {number} blockLength
 * @property {Forward[]} forwards
 * @property {string} text
 * @property {number | null} tokens of the answer, once it has ended
 * @property {string | null} ended why: stop, length, cancelled or failed
 * @property {string | null} problem
 * @property {number | null} seconds
 * @property {number | null} firstBlockSeconds
 * @property {Record<string, number> | null} stats
 *
 * @typedef {"waiting" | "masked" | "fresh" | "committed" | "edited" | "after"} CellState
 * @typedef {{state: CellState, text: string, confidence: number | null, isSpecial: boolean}} Cell
 * @typedef {{number: number, start: number, end: number, phases: string[]}} Block
 * @typedef {{surest: number, mean: number, least: number, masked: number} | null} Spread
 * @typedef {{cells: Cell[], blocks: Block[], committed: number}} Frame
 */

/** @param {Partial<Recording>} known @returns {Recording} */
export function emptyRecording(known) {
  return {
    model: "",
    prompt: "",
    label: "",
    threshold: null,
    length: 0,
    blockLength: 32,
    forwards: [],
    text: "",
    tokens: null,
    ended: null,
    problem: null,
    seconds: null,
    firstBlockSeconds: null,
    stats: null,
    ...known,
  };
}

/**
 * The canvas after so many forward passes; 0 is all masks. What lies behind the answer's end is told once all
 * of them are shown and the answer has ended.
 *
 * @param {Recording} recording @param {number} shown @returns {Frame}
 */
export function frameAt(recording, shown) {
  /** @type {Cell[]} */
  const cells = Array.from({ length: recording.length }, () => ({
    state: "waiting",
    text: "",
    confidence: null,
    isSpecial: false,
  }));
  /** @type {Block[]} */
  const blocks = [];
  let committed = 0;
  for (let number = 0; number < shown; number += 1) {
    const forward = recording.forwards[number];
    const isLast = number === shown - 1;
    const end = forward.start + forward.ids.length;
    let block = blocks[blocks.length - 1];
    if (block === undefined || block.start !== forward.start) {
      block = { number: blocks.length + 1, start: forward.start, end, phases: [] };
      blocks.push(block);
    }
    block.phases.push(forward.phase);
    for (let place = 0; place < forward.ids.length; place += 1) {
      const cell = cells[forward.start + place];
      if (cell === undefined) continue;
      const text = forward.texts[place];
      cell.confidence = forward.confidence[place] ?? null;
      if (text === null) {
        cell.state = "masked";
        continue;
      }
      const wasCommitted = cell.state === "committed" || cell.state === "fresh" || cell.state === "edited";
      const isOther = wasCommitted && cell.text !== text;
      cell.state = isLast && isOther ? "edited" : isLast && !wasCommitted ? "fresh" : "committed";
      cell.text = text;
      cell.isSpecial = text === "";
      committed += wasCommitted ? 0 : 1;
    }
  }
  if (recording.ended !== null && recording.tokens !== null && shown === recording.forwards.length) {
    for (const cell of cells.slice(recording.tokens)) cell.state = "after";
  }
  return { cells, blocks, committed };
}

/**
 * How sure the model was, at each forward pass, of the positions that were masked when it began; and how many
 * tokens it committed.
 *
 * @param {Recording} recording @returns {{spread: Spread, committed: number, edited: number, start: number, phase: string}[]}
 */
export function courseOf(recording) {
  /** @type {Map<number, number>} */
  const known = new Map();
  return recording.forwards.map((forward) => {
    const values = [];
    let committed = 0;
    let edited = 0;
    for (let place = 0; place < forward.ids.length; place += 1) {
      const position = forward.start + place;
      const id = forward.ids[place];
      const before = known.get(position);
      if (before === undefined) {
        const value = forward.confidence[place];
        if (value !== null && value !== undefined) values.push(value);
      }
      if (id < 0) continue;
      committed += before === undefined ? 1 : 0;
      edited += before !== undefined && before !== id ? 1 : 0;
      known.set(position, id);
    }
    const spread =
      values.length === 0
        ? null
        : {
            surest: Math.max(...values),
            mean: values.reduce((sum, value) => sum + value, 0) / values.length,
            least: Math.min(...values),
            masked: values.length,
          };
    return { spread, committed, edited, start: forward.start, phase: forward.phase };
  });
}

/**
 * "0.93", or a dash where there is none.
 * @param {number | null | undefined} value
 */
export function shortNumber(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}
