/** What both pages have: the key they may need, colours, short messages. */

import { apiKey, keepKey } from "./api.js";
import { byId } from "./dom.js";

const THEMES = ["auto", "light", "dark"];

/** @param {string} name @param {string} otherwise */
export function kept(name, otherwise) {
  try {
    return localStorage.getItem(`dllm.${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** @param {string} name @param {string} value */
export function keep(name, value) {
  try {
    localStorage.setItem(`dllm.${name}`, value);
  } catch {
    // Private windows may have no room.
  }
}

/**
 * Call once on each page.
 * @param {() => void} onKey the user has given another key
 */
export function startShell(onKey) {
  const theme = byId("theme");
  /** @param {string} name */
  const paint = (name) => {
    document.documentElement.dataset.theme = name;
    theme.textContent = { auto: "◐", light: "☀", dark: "☾" }[name] ?? "◐";
    theme.setAttribute("aria-label", `Colours: ${name}`);
    theme.title = `Colours: ${name}`;
  };
  paint(kept("theme", "auto"));
  theme.addEventListener("click", () => {
    const next =
      THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length];
    keep("theme", next);
    paint(next);
  });
  const dialog = byId("key-dialog");
  byId("key").addEventListener("click", () => askForKey(""));
  dialog.querySelector("form").addEventListener("submit", () => {
    keepKey(byId("key-input").value.trim());
    byId("key-input").value = "";
    onKey();
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
}

/** @param {string} why */
export function askForKey(why) {
  byId("key").hidden = false;
  byId("key-why").textContent = why;
  byId("key-input").value = apiKey();
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}

/**
 * Shown until there is another, or none; screen readers say it once.
 * @param {string} words
 */
export function notice(words) {
  const shown = byId("notice");
  if (shown.textContent !== words) shown.textContent = words;
  shown.hidden = words === "";
}

/**
 * Said to screen readers.
 * @param {string} words
 */
export function tell(words) {
  byId("told").textContent = words;
}

/**
 * Said, and shown for a moment.
 * @param {string} words
 */
export function say(words) {
  const toast = byId("toast");
  toast.textContent = words;
  toast.classList.add("is-shown");
  clearTimeout(Number(toast.dataset.timer));
  toast.dataset.timer = String(setTimeout(() => toast.classList.remove("is-shown"), 2500));
}
