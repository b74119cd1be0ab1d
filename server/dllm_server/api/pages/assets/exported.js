/** The whole of an exported file's page. */

import { byId, element } from "./dom.js";
import { Player } from "./player.js";

/** @param {import("./recording.js").Recording} recording */
function shownRecording(recording) {
  const player = new Player(recording, { speed: 8 });
  const counts = [
    [String(recording.forwards.length), "forward passes"],
    [String(recording.tokens ?? "–"), "tokens"],
    [recording.seconds === null ? "–" : `${recording.seconds.toFixed(2)} s`, "time"],
  ];
  return element(
    "section",
    { class: "card" },
    element("h2", { text: recording.label }),
    element("p", { class: "exported-prompt", text: recording.prompt }),
    player.root,
    element("p", { class: "answer-text", text: recording.text }),
    element(
      "ul",
      { class: "counts" },
      ...counts.map(([value, name]) => element("li", {}, element("b", { text: value }), ` ${name}`)),
    ),
  );
}

const recordings = JSON.parse(byId("recordings").textContent);
byId("exported").append(
  element("h1", { text: recordings[0].model }),
  element("div", { class: recordings.length > 1 ? "exported-pair" : "" }, ...recordings.map(shownRecording)),
  element("p", { class: "exported-from", text: "Recorded by dLLM-Serve's playground." }),
);
