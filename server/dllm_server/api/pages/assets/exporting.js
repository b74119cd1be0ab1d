/** A recording and its player as one HTML file that needs nothing else. */

import { address } from "./api.js";

/** In the order of their imports; names at their top are all different. */
const MODULES = ["dom.js", "recording.js", "canvas.js", "chart.js", "player.js", "exported.js"];
const STYLES = ["theme.css", "player.css", "exported.css"];
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/** @param {import("./recording.js").Recording[]} recordings @returns {Promise<string>} */
export async function exportedPage(recordings) {
  const [scripts, styles] = await Promise.all([texts(MODULES), texts(STYLES)]);
  const program = scripts.map(joined).join("\n");
  const data = JSON.stringify(recordings).replaceAll("<", "\\u003c");
  return [
    "<!doctype html>",
    '<html lang="en">',
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${POLICY}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    "<title>A diffusion model's answer, forward by forward</title>",
    `<style>${styles.join("\n").replaceAll("</", "<\\/")}</style>`,
    '<main id="exported"></main>',
    `<script type="application/json" id="recordings">${data}</script>`,
    `<script type="module">${program.replaceAll("</script", "<\\/script")}</script>`,
    "</html>",
    "",
  ].join("\n");
}

/** @param {string[]} names */
function texts(names) {
  return Promise.all(names.map(async (name) => (await fetch(address(`pages/${name}`))).text()));
}

/**
 * A module's text among those that it imports.
 * @param {string} text
 */
export function joined(text) {
  return text.replaceAll(/^import [^;]*;$/gm, "").replaceAll(/^export (?=async |function|class|const)/gm, "");
}
