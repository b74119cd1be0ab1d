/** A prompt and settings in the part of an address that no server sees. */

/** @param {any} state */
export function toFragment(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return `#s=${btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/**
 * Null where there is none, or nonsense.
 * @param {string} fragment @returns {any}
 */
export function fromFragment(fragment) {
  if (!fragment.startsWith("#s=")) return null;
  try {
    const text = atob(fragment.slice(3).replaceAll("-", "+").replaceAll("_", "/"));
    const state = JSON.parse(
      new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.charCodeAt(0))),
    );
    return state !== null && typeof state === "object" ? state : null;
  } catch {
    return null;
  }
}
