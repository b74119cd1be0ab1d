/** The engine page: the newest /snapshot, once a second while it can be seen. */

import { askState, wantsKey } from "./api.js";
import { byId, element } from "./dom.js";
import { sparkLine, stackedBar, stepColumns } from "./plots.js";
import { askForKey, notice, startShell } from "./shell.js";
import { count, duration, plain, size } from "./units.js";

const EVERY_MILLISECONDS = 1000;
const KEPT_RATES = 60;
const SHOWN_STEPS = 64;
const OWNERS = ["weights", "kv_pool", "activations", "logits", "other"];

/** @type {{at: number, committed: number, steps: number} | null} */
let before = null;
/** @type {number[]} */
const rates = [];
let stepRate = 0;
let isPaused = false;
let isAsking = false;

async function look() {
  if (isPaused || isAsking || document.hidden) return;
  isAsking = true;
  try {
    show(await askState("snapshot"));
    notice("");
  } catch (error) {
    if (wantsKey(error)) {
      pause(true);
      askForKey("This server asks for a key.");
    }
    notice(`No state: ${error instanceof Error ? error.message : error}`);
  } finally {
    isAsking = false;
  }
}

/** @param {any} told */
function show(told) {
  measure(told);
  byId("model").textContent = `${told.server.model} · ${told.server.device} · ${told.server.dtype}`;
  byId("board").replaceChildren(
    summary(told),
    throughput(),
    steps(told),
    memory(told),
    requests(told),
    pages(told),
    latency(told),
    tuning(told),
  );
}

/**
 * Rates between two readings.
 * @param {any} told
 */
function measure(told) {
  const now = {
    at: told.server.now_seconds,
    committed: told.steps.committed_tokens_total,
    steps: Object.values(told.steps.total).reduce((sum, number) => sum + Number(number), 0),
  };
  if (before !== null && now.at > before.at && now.committed >= before.committed) {
    const seconds = now.at - before.at;
    rates.push((now.committed - before.committed) / seconds);
    stepRate = (now.steps - before.steps) / seconds;
    if (rates.length > KEPT_RATES) rates.shift();
  }
  before = now;
}

/** @param {string} title @param {string} kind @param {...(Node | null)} children */
function panel(title, kind, ...children) {
  const id = `title-${kind}`;
  return element(
    "section",
    { class: `card panel ${kind}`, "aria-labelledby": id },
    element("h2", { id, text: title }),
    ...children,
  );
}

/** @param {any} told */
function summary(told) {
  /** @type {[string, string][]} */
  const figures = [
    [count(told.requests.running), `running of ${count(told.requests.most_running)}`],
    [count(told.requests.waiting), "waiting"],
    [count(rates[rates.length - 1] ?? 0), "tokens/s"],
    [count(stepRate), "steps/s"],
    [
      told.latency.end_to_end_seconds.p50 === null ? "–" : duration(told.latency.end_to_end_seconds.p50),
      "median answer",
    ],
    [duration(told.server.now_seconds - told.server.started_seconds), "up"],
  ];
  const warnings = [];
  if (!told.is_sound) warnings.push("The model computes no numbers: requests are refused.");
  if (told.tuning.is_refused) warnings.push("The newest tuning file is refused.");
  return element(
    "section",
    { class: "card panel summary", "aria-label": "Now" },
    element(
      "ul",
      { class: "counts" },
      ...figures.map(([value, name]) =>
        element("li", {}, element("b", { text: value }), element("span", { text: name })),
      ),
    ),
    ...warnings.map((text) => element("p", { class: "notice", text })),
  );
}

function throughput() {
  const now = rates[rates.length - 1] ?? 0;
  const most = Math.max(0, ...rates);
  return panel(
    "Committed tokens a second",
    "throughput",
    sparkLine(`Committed tokens a second, now ${count(now)}, at most ${count(most)}`, rates, KEPT_RATES),
    element("p", {
      class: "under",
      text: `now ${count(now)} · most ${count(most)} in the last ${duration(rates.length)}`,
    }),
  );
}

/** @param {any} told */
function memory(told) {
  const { memory: held } = told;
  const parts = OWNERS.filter((owner) => owner in held.by_owner).map((owner, place) => ({
    name: owner.replace("_", " "),
    value: held.by_owner[owner],
    kind: `owner${place}`,
    words: size(held.by_owner[owner]),
    hint: `peak ${size(held.peak_by_owner[owner] ?? 0)} · predicted ${size(held.predicted_by_owner[owner] ?? 0)}`,
  }));
  parts.push({
    name: "free",
    value: held.by_owner.free ?? 0,
    kind: "free",
    words: size(held.by_owner.free ?? 0),
    hint: `least ${size(held.peak_by_owner.free ?? 0)}`,
  });
  const mark = {
    share: held.budget_bytes / held.device_bytes,
    words: `budget ${size(held.budget_bytes)} of ${size(held.device_bytes)}`,
  };
  return panel("Memory by owner", "memory", stackedBar("Memory", parts, held.device_bytes, mark));
}

/** @param {any} told */
function requests(told) {
  const phases = Object.entries(told.requests.by_phase);
  const total = phases.reduce((sum, [, number]) => sum + Number(number), 0);
  const parts = phases.map(([name, number], place) => ({
    name,
    value: Number(number),
    kind: name === "waiting" ? "owner4" : `owner${place - 1}`,
    words: count(Number(number)),
  }));
  return panel("Requests by phase", "requests", stackedBar("Requests", parts, Math.max(total, 1)));
}

/** @param {any} told */
function steps(told) {
  const recent = told.steps.recent.slice(-SHOWN_STEPS);
  const phases = Object.keys(told.steps.tokens_total);
  const last = recent[recent.length - 1];
  const seconds =
    recent.reduce((/** @type {number} */ sum, /** @type {any} */ step) => sum + step.seconds, 0) /
    Math.max(recent.length, 1);
  const names = phases.map((phase, place) =>
    element(
      "li",
      {},
      element("span", { class: `swatch owner${place}`, "aria-hidden": "true" }),
      element("span", { text: phase }),
      element("b", { text: last === undefined ? "–" : count(last.tokens[phase] ?? 0) }),
      element("small", { text: last === undefined ? "" : `${count(last.requests[phase] ?? 0)} requests` }),
    ),
  );
  return panel(
    `The last ${recent.length} steps, query tokens`,
    "steps",
    stepColumns(recent, phases, SHOWN_STEPS),
    element(
      "ul",
      { class: "names" },
      ...names,
      element(
        "li",
        {},
        element("span", { class: "swatch mark", "aria-hidden": "true" }),
        element("span", { text: "budget" }),
        element("b", { text: count(told.steps.token_budget) }),
      ),
    ),
    element("p", {
      class: "under",
      text: `${duration(seconds)} a step · ${count(before?.steps ?? 0)} steps so far · ${count(told.steps.out_of_memory_total)} out of memory · ${count(told.steps.preemptions_total)} preemptions`,
    }),
  );
}

/** @param {any} told */
function pages(told) {
  const { used, free, prefix, page_size: slots } = told.pages;
  const parts = [
    { name: "used", value: used, kind: "owner0", words: count(used) },
    ...(told.prefix_cache === null
      ? []
      : [{ name: "prefixes", value: prefix, kind: "owner1", words: count(prefix) }]),
    { name: "free", value: free - prefix, kind: "free", words: count(free - prefix) },
  ];
  const cache = told.prefix_cache;
  const rate =
    cache !== null && cache.queried > 0
      ? `${Math.round((cache.hit / cache.queried) * 100)}% of ${count(cache.queried)} prompt tokens were there`
      : "no prompt yet";
  return panel(
    "K/V pages",
    "pages",
    stackedBar("Pages", parts, used + free),
    element("p", {
      class: "under",
      text: `${count(used + free)} pages of ${slots} slots${cache === null ? "" : ` · prefix cache: ${rate}, ${count(cache.evicted)} evicted`}`,
    }),
  );
}

/** @param {any} told */
function latency(told) {
  const kinds = [
    ["queue", "queue_seconds"],
    ["first block", "first_block_seconds"],
    ["end to end", "end_to_end_seconds"],
  ];
  const rows = kinds.map(([name, field]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", text: name }),
      ...["p50", "p95", "p99"].map((share) => element("td", { text: duration(told.latency[field][share]) })),
    ),
  );
  return panel(
    "Latency",
    "latency",
    table(["p50", "p95", "p99"], rows),
    element("p", { class: "under", text: `of the last ${count(told.latency.answers)} answers` }),
  );
}

/** @param {string[]} columns @param {Node[]} rows with a heading each */
function table(columns, rows) {
  const headings = columns.map((name) => element("th", { scope: "col", text: name }));
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, element("td"), ...headings)),
    element("tbody", {}, ...rows),
  );
}

/** @param {any} told */
function tuning(told) {
  const settings = Object.entries(told.tuning.settings).map(([name, /** @type {any} */ setting]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", text: name }),
      ...[setting.value, setting.floor, setting.ceiling].map((value) =>
        element("td", { text: value === null ? "–" : plain(value) }),
      ),
    ),
  );
  const changes = [...told.tuning.changes].reverse().map((/** @type {any} */ change) => {
    const words = Object.entries(change.settings)
      .map(([name, [old, now]]) => `${name} ${plain(old)} → ${plain(now)}`)
      .join(", ");
    return element(
      "li",
      {},
      element("b", { text: `generation ${change.generation}` }),
      element("span", {
        text: ` ${duration(told.server.now_seconds - change.at_seconds)} ago: ${words || "nothing changed"}`,
      }),
    );
  });
  return panel(
    `Tuning · generation ${told.tuning.generation}`,
    "tuning",
    table(["in force", "floor", "ceiling"], settings),
    changes.length === 0
      ? element("p", { class: "under", text: "No change since the start." })
      : element("ol", { class: "changes" }, ...changes),
  );
}

/** @param {boolean} stops */
function pause(stops) {
  isPaused = stops;
  byId("pause").setAttribute("aria-pressed", String(stops));
  byId("pause").textContent = stops ? "Resume" : "Pause";
  before = null;
}

byId("pause").addEventListener("click", () => {
  pause(!isPaused);
  look();
});
document.addEventListener("visibilitychange", look);
startShell(() => {
  pause(false);
  look();
});
look();
setInterval(look, EVERY_MILLISECONDS);
