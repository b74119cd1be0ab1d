/** Copying and saving, on pages without TLS too, where browsers have no clipboard for scripts. */

import { element } from "./dom.js";

/** @param {string} text @returns {Promise<boolean>} whether it is on the clipboard */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text);
  }
}

/** @param {string} text */
function copyOldWay(text) {
  const holder = element("textarea", { class: "offscreen", "aria-hidden": "true", tabindex: "-1" });
  holder.value = text;
  const before = document.activeElement;
  document.body.append(holder);
  holder.select();
  const isCopied = document.execCommand("copy");
  holder.remove();
  if (before instanceof HTMLElement) before.focus();
  return isCopied;
}

/** @param {string} name @param {string} text @param {string} type */
export function saveFile(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
