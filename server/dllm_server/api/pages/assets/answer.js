/** One answer of the model: its request, its recording while it grows, and its card. */

import { apiKey, ask, events } from "./api.js";
import { element } from "./dom.js";
import { Player } from "./player.js";
import { emptyRecording } from "./recording.js";
import { asCurl, asPython, requestOf, streamed } from "./request.js";
import { labelOf, thresholdOf } from "./settings.js";

export class Answer {
  /**
   * @param {import("./request.js").Asked} asked
   * @param {import("./settings.js").Decoding} decoding
   * @param {{side: string, speed: number, actions: (answer: Answer) => Node[]}} look
   */
  constructor(asked, decoding, look) {
    this.asked = asked;
    this.decoding = decoding;
    this.request = requestOf(asked, decoding);
    this.abort = new AbortController();
    this.recording = emptyRecording({
      model: asked.model,
      prompt: asked.messages[asked.messages.length - 1].content,
      label: labelOf(asked.settings, decoding),
      threshold: thresholdOf(asked.settings, decoding),
      length: asked.maxTokens,
      blockLength: asked.settings.blockLength,
    });
    this.player = new Player(this.recording, { speed: look.speed });
    this.status = element("span", { class: "status running", text: "waiting" });
    this.text = element("p", { class: "answer-text" });
    this.counts = element("ul", { class: "counts" });
    this.actions = element("div", { class: "actions", role: "group", "aria-label": "Answer" });
    this.look = look;
    this.root = element(
      "article",
      { class: "card answer", "aria-label": look.side ? `Answer ${look.side}` : "Answer" },
      element(
        "header",
        {},
        look.side ? element("span", { class: `side ${look.side}`, text: look.side }) : null,
        element("h2", { text: this.recording.label }),
        this.status,
      ),
      this.player.root,
      this.text,
      this.counts,
      this.actions,
    );
    this.tell();
  }

  get curl() {
    return asCurl(this.request, apiKey() !== "");
  }

  get python() {
    return asPython(this.request, apiKey() !== "");
  }

  cancel() {
    this.abort.abort();
  }

  /** Send the request and follow it to its end, whatever that is. */
  async run() {
    const { recording } = this;
    const began = performance.now();
    try {
      const body = JSON.stringify(streamed(this.request.body));
      const answer = await ask(this.request.path, { method: "POST", body, signal: this.abort.signal });
      this.player.play();
      for await (const { event, data } of events(answer)) {
        if (data === "[DONE]") break;
        const told = JSON.parse(data);
        if (told.error) throw new Error(told.error.message);
        if (event === "canvas") this.#addForward(told, performance.now() - began);
        else this.#addChunk(told, (performance.now() - began) / 1000);
      }
      if (recording.ended === null) throw new Error("the stream broke off");
    } catch (error) {
      const isCancelled = this.abort.signal.aborted;
      recording.ended = isCancelled ? "cancelled" : "failed";
      recording.problem = isCancelled ? null : String(error instanceof Error ? error.message : error);
      if (isCancelled) this.player.finish();
    }
    recording.seconds ??= (performance.now() - began) / 1000;
    this.tell();
    this.player.grown();
    this.actions.replaceChildren(...this.look.actions(this));
    return this;
  }

  /** @param {any} told @param {number} at */
  #addForward(told, at) {
    this.recording.forwards.push({
      at,
      start: told.block_start,
      phase: told.phase,
      ids: told.token_ids,
      texts: told.token_texts,
      confidence: told.confidence,
    });
    this.player.grown();
    this.tell();
  }

  /** @param {any} told @param {number} seconds */
  #addChunk(told, seconds) {
    const { recording } = this;
    const [choice] = told.choices;
    if (choice !== undefined) {
      const piece = choice.delta === undefined ? choice.text : choice.delta.content;
      if (piece) {
        recording.text += piece;
        recording.firstBlockSeconds ??= seconds;
      }
      if (choice.finish_reason) recording.ended = choice.finish_reason;
    }
    if (told.usage) {
      recording.tokens = told.usage.completion_tokens;
      recording.seconds = seconds;
    }
    if (told.dllm_stats) recording.stats = told.dllm_stats;
    this.tell();
  }

  tell() {
    const { recording } = this;
    const forwards = recording.forwards.length;
    const [kind, words] = statusOf(recording);
    this.status.className = `status ${kind}`;
    this.status.textContent = words;
    this.text.textContent = recording.problem ?? recording.text;
    this.text.classList.toggle("problem", recording.problem !== null);
    const tokens = recording.tokens;
    const refreshes = recording.stats?.refresh_passes ?? recording.stats?.prefill_passes;
    /** @type {[string, string][]} */
    const counts = [
      [String(forwards), "forwards"],
      [tokens === null ? "–" : String(tokens), "tokens"],
      [tokens === null || forwards === 0 ? "–" : (tokens / forwards).toFixed(1), "tokens a forward"],
      [recording.seconds === null ? "–" : time(recording.seconds), "time"],
      [recording.firstBlockSeconds === null ? "–" : time(recording.firstBlockSeconds), "first block"],
    ];
    if (refreshes !== undefined && refreshes !== null)
      counts.push([
        String(refreshes),
        this.decoding.attention === "bidirectional" ? "refreshes" : "prefills",
      ]);
    this.counts.replaceChildren(
      ...counts.map(([value, name]) =>
        element("li", {}, element("b", { text: value }), element("span", { text: name })),
      ),
    );
  }
}

/** @param {import("./recording.js").Recording} recording @returns {[string, string]} */
function statusOf(recording) {
  switch (recording.ended) {
    case null:
      return ["running", recording.forwards.length === 0 ? "waiting" : "denoising"];
    case "stop":
      return ["done", "finished"];
    case "length":
      return ["done", "full canvas"];
    case "cancelled":
      return ["cancelled", "cancelled"];
    default:
      return ["failed", "failed"];
  }
}

/** @param {number} seconds */
export function time(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}
