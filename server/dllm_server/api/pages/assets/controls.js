/** The form of one side's settings. What the model cannot do is shown, and says why. */

import { element } from "./dom.js";
import { VALUES } from "./settings.js";

export class Controls {
  /**
   * @param {string} side A or B
   * @param {import("./settings.js").Settings} settings
   * @param {import("./settings.js").Decoding} decoding
   * @param {() => void} changed
   */
  constructor(side, settings, decoding, changed) {
    this.side = side;
    this.settings = settings;
    this.decoding = decoding;
    this.changed = changed;
    this.root = element("fieldset", { class: `controls side-${side}` });
    this.build();
  }

  build() {
    const { settings, decoding } = this;
    const strategies = Object.keys(decoding.strategies);
    const strategy = element(
      "select",
      { id: this.#id("strategy"), on: { change: () => this.#chooseStrategy(strategy.value) } },
      ...strategies.map((name) => element("option", { value: name, text: name.replace("_", " ") })),
    );
    strategy.value = settings.strategy;
    const value = VALUES[/** @type {keyof typeof VALUES} */ (settings.strategy)];
    this.root.replaceChildren(
      element("legend", {}, element("span", { class: `side ${this.side}`, text: this.side }), " Decoding"),
      this.#row("Strategy", "strategy", strategy),
      this.#slider(
        value.name,
        "value",
        value.least,
        value.name === "Tokens a forward" ? settings.blockLength : value.most,
        value.step,
        "value",
      ),
      this.#slider("Block length", "block", 1, 128, 1, "blockLength", decoding.refused.block_length),
      this.#slider(
        "Retention",
        "retention",
        0.05,
        decoding.most_retention_ratio,
        0.05,
        "retention",
        decoding.refused.retention_ratio,
      ),
      this.#slider("Temperature", "temperature", 0, 2, 0.05, "temperature"),
      this.#seed(),
    );
  }

  /** @param {string} strategy */
  #chooseStrategy(strategy) {
    this.settings.strategy = strategy;
    this.settings.value = this.decoding.strategies[strategy];
    this.build();
    document.getElementById(this.#id("strategy"))?.focus();
    this.changed();
  }

  /**
   * @param {string} name @param {string} key @param {number} least @param {number} most @param {number} step
   * @param {"value" | "blockLength" | "retention" | "temperature"} field @param {string} [refused]
   */
  #slider(name, key, least, most, step, field, refused) {
    const now = this.settings[field];
    const largest = field === "blockLength" ? 1024 : Math.max(most, now);
    const number = element("input", {
      type: "number",
      id: this.#id(key),
      min: Math.min(least, now),
      max: largest,
      step: "any",
      value: now,
      inputmode: "decimal",
    });
    const range = element("input", {
      type: "range",
      min: Math.min(least, now),
      max: Math.max(most, now),
      step,
      value: now,
      "aria-label": `${name} ${this.side}, slider`,
    });
    /** @param {any} from @param {any} to */
    const take = (from, to) => {
      const given = Number(from.value);
      if (from.value === "" || !from.checkValidity() || !(given >= 0)) return;
      this.settings[field] = field === "blockLength" ? Math.round(given) : given;
      to.value = from.value;
      this.changed();
    };
    number.addEventListener("input", () => take(number, range));
    range.addEventListener("input", () => take(range, number));
    return this.#row(name, key, number, range, refused);
  }

  #seed() {
    const seed = element("input", {
      type: "number",
      id: this.#id("seed"),
      min: 0,
      step: 1,
      placeholder: "random",
      inputmode: "numeric",
      value: this.settings.seed ?? "",
      on: {
        input: () => {
          this.settings.seed = seed.value === "" || !seed.checkValidity() ? null : Number(seed.value);
          this.changed();
        },
      },
    });
    return this.#row("Seed", "seed", seed);
  }

  /** @param {string} name @param {string} key @param {any} input @param {any} [range] @param {string} [refused] */
  #row(name, key, input, range, refused) {
    const row = element(
      "div",
      { class: "row" },
      element("label", { for: this.#id(key), text: name }),
      input,
      range ?? null,
    );
    if (refused !== undefined) {
      const why = element("p", { class: "why", id: this.#id(`${key}-why`), text: reason(refused) });
      for (const control of [input, range]) {
        if (!control) continue;
        control.disabled = true;
        control.setAttribute("aria-describedby", why.id);
      }
      row.append(why);
      row.classList.add("fixed");
    }
    return row;
  }

  /** @param {string} key */
  #id(key) {
    return `${this.side}-${key}`;
  }
}

/**
 * The server's own words without the field's name and the remedy.
 * @param {string} refused
 */
function reason(refused) {
  return refused.replace(/^diffusion\.\w+: /, "").replace(/: leave it out$/, "");
}
