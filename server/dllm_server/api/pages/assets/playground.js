/** The playground: a prompt, one or two settings, and the answers as they are denoised. */

import { Answer } from "./answer.js";
import { askState, wantsKey } from "./api.js";
import { copyText, saveFile } from "./clipboard.js";
import { comparison, runsList } from "./comparison.js";
import { Controls } from "./controls.js";
import { byId, element } from "./dom.js";
import { examplesFor, isEmbedded } from "./examples.js";
import { exportedPage } from "./exporting.js";
import { fittingSettings } from "./settings.js";
import { fromFragment, toFragment } from "./share.js";
import { askForKey, keep, kept, notice, say, startShell, tell } from "./shell.js";

const AGAIN_MILLISECONDS = 3000;

class Playground {
  #loads = 0;

  constructor() {
    /** @type {any} */
    this.model = null;
    /** @type {Record<"A" | "B", import("./settings.js").Settings>} */
    this.settings = /** @type {any} */ ({});
    /** @type {Answer[]} */
    this.answers = [];
    /** @type {Answer[]} */
    this.running = [];
    /** @type {{prompt: string, texts: Record<string, string>}[]} */
    this.turns = [];
    this.prompt = byId("prompt");
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.send();
    });
    this.prompt.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    this.prompt.addEventListener("input", () => this.#fitPrompt());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.running.length > 0) this.cancel();
    });
    byId("cancel").addEventListener("click", () => this.cancel());
    byId("new-chat").addEventListener("click", () => this.clear());
    byId("share").addEventListener("click", () => this.share());
    byId("compare").addEventListener("change", () => this.#showControls());
    for (const id of ["max-tokens", "system", "history"])
      byId(id).addEventListener("input", () => this.#keep());
    if (matchMedia("(max-width: 900px)").matches) byId("settings").open = false;
    window.addEventListener("hashchange", () => this.#restore());
  }

  /** Ask the server what it serves, again and again until it answers, or asks for a key. */
  async load() {
    const load = ++this.#loads;
    try {
      const { data } = await askState("v1/models");
      if (load !== this.#loads) return;
      this.model = data[0];
    } catch (error) {
      if (load !== this.#loads) return;
      if (wantsKey(error)) askForKey("This server asks for a key.");
      else {
        this.#refuse(error);
        setTimeout(() => load === this.#loads && this.load(), AGAIN_MILLISECONDS);
      }
      return;
    }
    byId("model").textContent = this.model.id;
    byId("max-tokens").max = String(this.model.max_model_len);
    for (const row of document.querySelectorAll(".chat-only"))
      /** @type {HTMLElement} */ (row).hidden = !this.model.decoding.has_chat_template;
    notice("");
    this.#restore();
    this.#showExamples();
    byId("send").disabled = false;
  }

  /** From the address, else from the last visit, else the server's own settings. */
  #restore() {
    if (this.model === null) return;
    const shared = fromFragment(location.hash);
    let state = shared;
    if (state === null) {
      try {
        state = JSON.parse(kept("playground", "null"));
      } catch {
        state = null;
      }
    }
    const { decoding } = this.model;
    this.settings = {
      A: fittingSettings(state?.a, decoding),
      B: fittingSettings(state?.b ?? this.#unlike(), decoding),
    };
    const most = this.model.max_model_len;
    byId("max-tokens").value = String(
      Number.isInteger(state?.maxTokens)
        ? Math.min(Math.max(state.maxTokens, 1), most)
        : Math.min(most > 2048 ? 256 : 64, most),
    );
    byId("compare").checked = state?.compare === true;
    byId("system").value = typeof state?.system === "string" ? state.system : "";
    byId("history").checked =
      typeof state?.history === "boolean" ? state.history : !isEmbedded(this.model.id);
    if (typeof shared?.prompt === "string") this.prompt.value = shared.prompt;
    this.#fitPrompt();
    this.#showControls();
  }

  /** Something to compare with: one token a forward pass. */
  #unlike() {
    return { strategy: "quota", value: 1 };
  }

  #showControls() {
    const sides = this.#sides();
    const { decoding } = this.model;
    const forms = sides.map((side) => new Controls(side, this.settings[side], decoding, () => this.#keep()));
    byId("controls").replaceChildren(...forms.map((form) => form.root));
    byId("controls").classList.toggle("is-pair", sides.length > 1);
    this.#keep();
  }

  /** @returns {("A" | "B")[]} */
  #sides() {
    return byId("compare").checked ? ["A", "B"] : ["A"];
  }

  #state() {
    return {
      a: this.settings.A,
      b: this.settings.B,
      compare: byId("compare").checked,
      maxTokens: this.#maxTokens(),
      system: byId("system").value,
      history: byId("history").checked,
    };
  }

  #keep() {
    keep("playground", JSON.stringify(this.#state()));
  }

  #maxTokens() {
    return Math.min(
      Math.max(Math.round(Number(byId("max-tokens").value)) || 64, 1),
      this.model.max_model_len,
    );
  }

  #fitPrompt() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${Math.min(this.prompt.scrollHeight + 2, 220)}px`;
  }

  #showExamples() {
    const chips = examplesFor(this.model.id).map(({ name, prompt }) =>
      element("button", {
        type: "button",
        class: "chip",
        text: name,
        title: prompt,
        on: {
          click: () => {
            this.prompt.value = prompt;
            this.#fitPrompt();
            this.prompt.focus();
          },
        },
      }),
    );
    byId("examples").replaceChildren(...chips);
  }

  async send() {
    const prompt = this.prompt.value.trim();
    if (prompt === "" || this.model === null || this.running.length > 0) return;
    byId("hero").hidden = true;
    const sides = this.#sides();
    const speed = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 8;
    const answers = sides.map(
      (side) =>
        new Answer(
          {
            model: this.model.id,
            messages: this.#messages(side, prompt),
            maxTokens: this.#maxTokens(),
            settings: { ...this.settings[side] },
          },
          this.model.decoding,
          { side: sides.length > 1 ? side : "", speed, actions: (answer) => this.#actions(answer) },
        ),
    );
    const turn = element(
      "section",
      { class: "turn", "aria-label": `Turn ${this.turns.length + 1}` },
      element(
        "div",
        { class: "asked", tabindex: prompt.length > 160 ? "0" : null, role: "group", "aria-label": "Prompt" },
        element("p", { text: prompt }),
      ),
      element(
        "div",
        { class: sides.length > 1 ? "pair" : "single" },
        ...answers.map((answer) => answer.root),
      ),
    );
    byId("thread").append(turn);
    turn.scrollIntoView({ block: "start", behavior: "smooth" });
    this.prompt.value = "";
    this.#fitPrompt();
    if (matchMedia("(pointer: fine)").matches) this.prompt.focus();
    document.body.classList.add("has-turns");
    this.running = answers;
    this.#showRunning();
    tell("Generating");
    await Promise.all(answers.map((answer) => answer.run()));
    this.running = [];
    this.answers.push(...answers);
    this.#finish(turn, answers, prompt);
  }

  /** @param {HTMLElement} turn @param {Answer[]} answers @param {string} prompt */
  #finish(turn, answers, prompt) {
    this.#showRunning();
    const [a, b] = answers;
    if (a.recording.ended === "stop" || a.recording.ended === "length") {
      this.turns.push({ prompt, texts: { A: a.recording.text, B: (b ?? a).recording.text } });
    }
    const both = element("button", {
      type: "button",
      class: "quiet",
      text: "Export both replays",
      on: { click: () => this.#export(answers) },
    });
    const compared = b === undefined ? null : comparison(a, b, both);
    if (compared !== null) {
      turn.insertBefore(compared, turn.lastElementChild);
      turn.scrollIntoView({ block: "start", behavior: "smooth" });
    }
    byId("runs-list").replaceChildren(...runsList(this.answers));
    byId("runs").hidden = false;
    const problem = answers.find((answer) => answer.recording.problem !== null)?.recording.problem;
    const ends = answers.map((answer) => answer.recording.text || answer.recording.ended);
    tell(problem ?? `Finished: ${ends.join("; and ")}`);
  }

  /** @param {"A" | "B"} side @param {string} prompt */
  #messages(side, prompt) {
    const system = byId("system").value.trim();
    const before = (byId("history").checked ? this.turns : []).flatMap((turn) => [
      { role: "user", content: turn.prompt },
      { role: "assistant", content: turn.texts[side] },
    ]);
    const chat = this.model.decoding.has_chat_template;
    return [
      ...(chat && system !== "" ? [{ role: "system", content: system }] : []),
      ...(chat ? before : []),
      { role: "user", content: prompt },
    ];
  }

  cancel() {
    for (const answer of this.running) answer.cancel();
  }

  clear() {
    this.cancel();
    this.turns = [];
    byId("thread").replaceChildren();
    byId("hero").hidden = false;
    document.body.classList.remove("has-turns");
    this.prompt.focus();
  }

  #showRunning() {
    const isRunning = this.running.length > 0;
    byId("cancel").hidden = !isRunning;
    byId("send").hidden = isRunning;
  }

  /** @param {Answer} answer */
  #actions(answer) {
    /** @param {string} name @param {() => void} press */
    const button = (name, press) =>
      element("button", { type: "button", class: "quiet", text: name, on: { click: press } });
    return [
      button("Export replay", () => this.#export([answer])),
      button("Copy as curl", () => this.#copy(answer.curl, "curl")),
      button("Copy as Python", () => this.#copy(answer.python, "Python")),
      button("Copy text", () => this.#copy(answer.recording.text, "text")),
    ];
  }

  /** @param {Answer[]} answers */
  async #export(answers) {
    saveFile("dllm-replay.html", await exportedPage(answers.map((answer) => answer.recording)), "text/html");
    say("Saved as dllm-replay.html");
  }

  /** @param {string} text @param {string} what */
  async #copy(text, what) {
    say((await copyText(text)) ? `Copied as ${what}` : "The browser does not let this page copy");
  }

  async share() {
    const last = this.answers[this.answers.length - 1]?.recording.prompt ?? "";
    const fragment = toFragment({ ...this.#state(), prompt: this.prompt.value.trim() || last });
    history.replaceState(null, "", fragment);
    say((await copyText(location.href)) ? "Link copied" : "The link is in the address bar");
  }

  /** @param {any} error */
  #refuse(error) {
    const why = error instanceof Error ? error.message : error;
    notice(`The server cannot be asked: ${why} (asked again every few seconds)`);
  }
}

const playground = new Playground();
startShell(() => playground.load());
playground.load();
