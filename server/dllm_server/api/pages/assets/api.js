/** The server's API: where it is, the key it may ask for, and its event streams. */

const KEY = "dllm.key";
const STATE_MILLISECONDS = 10_000;

/**
 * Addresses are relative, so that a proxy may serve the pages under a path.
 * @param {string} path
 */
export function address(path) {
  return new URL(path, document.baseURI).href;
}

/** Kept for this tab only. */
export function apiKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** @param {string} key */
export function keepKey(key) {
  if (key === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/** What the server refused, in its own words. */
export class Refused extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
export async function ask(path, options = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (apiKey() !== "") headers.Authorization = `Bearer ${apiKey()}`;
  if (options.body) headers["Content-Type"] = "application/json";
  const answer = await fetch(address(path), {
    ...options,
    headers,
    cache: "no-store",
    credentials: "same-origin",
  });
  if (!answer.ok) throw new Refused(answer.status, await words(answer));
  return answer;
}

/**
 * What the server tells of itself, at once or not at all.
 * @param {string} path @returns {Promise<any>}
 */
export async function askState(path) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), STATE_MILLISECONDS);
  try {
    return await (await ask(path, { signal: abort.signal })).json();
  } catch (error) {
    throw abort.signal.aborted ? new Error("no answer within 10 s") : error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Whether only a key helps.
 * @param {unknown} error
 */
export function wantsKey(error) {
  return error instanceof Refused && (error.status === 401 || error.status === 403);
}

/** @param {Response} answer */
async function words(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text || `${answer.status} ${answer.statusText}`;
  }
}

/**
 * Server-sent events of an answer; comments are passed over.
 *
 * @param {Response} answer @returns {AsyncGenerator<{event: string, data: string}>}
 */
export async function* events(answer) {
  if (answer.body === null) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop() ?? "";
      for (const frame of frames) {
        const lines = frame.split("\n");
        const event = lines.find((line) => line.startsWith("event: "))?.slice(7) ?? "message";
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (data.length > 0) yield { event, data: data.join("\n") };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
