/** From a prompt and settings to a request: its body, and the same as curl and as Python. */

import { address } from "./api.js";
import { diffusionOf } from "./settings.js";

/**
 * @typedef {object} Asked
 * @property {string} model
 * @property {{role: string, content: string}[]} messages
 * @property {number} maxTokens
 * @property {import("./settings.js").Settings} settings
 *
 * @param {Asked} asked @param {import("./settings.js").Decoding} decoding
 * @returns {{path: string, body: Record<string, any>}}
 */
export function requestOf(asked, decoding) {
  const { settings } = asked;
  /** @type {Record<string, any>} */
  const body = { model: asked.model };
  if (decoding.has_chat_template) body.messages = asked.messages;
  else body.prompt = asked.messages.map((message) => message.content).join("\n");
  body.max_tokens = asked.maxTokens;
  if (settings.temperature > 0) body.temperature = settings.temperature;
  if (settings.seed !== null) body.seed = settings.seed;
  const diffusion = diffusionOf(settings, decoding);
  if (Object.keys(diffusion).length > 0) body.diffusion = diffusion;
  return { path: decoding.has_chat_template ? "v1/chat/completions" : "v1/completions", body };
}

/**
 * What the model thinks stays in the text, as in the canvases.
 * @param {Record<string, any>} body
 */
export function streamed(body) {
  const options = { include_usage: true, include_canvas: true, include_canvas_confidence: true };
  return { ...body, separate_reasoning: false, stream: true, stream_options: options };
}

/** @param {{path: string, body: Record<string, any>}} request @param {boolean} hasKey */
export function asCurl(request, hasKey) {
  const lines = [`curl ${quoted(address(request.path))}`, `-H 'Content-Type: application/json'`];
  if (hasKey) lines.push('-H "Authorization: Bearer $DLLM_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(request.body, null, 2))}`);
  return `${lines.join(" \\\n  ")}\n`;
}

/**
 * For a POSIX shell.
 * @param {string} text
 */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {{path: string, body: Record<string, any>}} request @param {boolean} hasKey */
export function asPython(request, hasKey) {
  const { diffusion, ...own } = request.body;
  const isChat = "messages" in own;
  const fields = Object.entries(own).map(([name, value]) => `    ${name}=${literal(value, 1)},`);
  if (diffusion !== undefined) fields.push(`    extra_body=${literal({ diffusion }, 1)},`);
  const key = hasKey ? 'os.environ["DLLM_API_KEY"]' : '"none"';
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(address("v1"))}, api_key=${key})`,
    `answer = client.${isChat ? "chat.completions" : "completions"}.create(`,
    ...fields,
    ")",
    `print(answer.choices[0].${isChat ? "message.content" : "text"})`,
    "",
  ].join("\n");
}

/**
 * JSON and Python write these values alike, but for null, true and false.
 * @param {any} value @param {number} depth @returns {string}
 */
function literal(value, depth) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  const parts = Array.isArray(value)
    ? value.map((item) => literal(item, depth))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, depth)}`);
  return `${open}${parts.join(", ")}${close}`;
}
