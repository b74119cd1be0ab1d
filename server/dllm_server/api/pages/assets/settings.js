/**
 * The settings of one side of the playground, and how a request says them.
 *
 * @typedef {object} Settings
 * @property {string} strategy
 * @property {number} value of the strategy
 * @property {number} blockLength
 * @property {number} retention
 * @property {number} temperature
 * @property {number | null} seed
 *
 * @typedef {object} Decoding what /v1/models says of the model
 * @property {"bidirectional" | "block_causal"} attention
 * @property {boolean} has_chat_template
 * @property {Record<string, any>} defaults
 * @property {Record<string, number>} strategies
 * @property {Record<string, string>} refused
 * @property {number} most_retention_ratio
 */

/** How each strategy's value is called, and what it may be. */
export const VALUES = {
  threshold: { name: "Threshold", least: 0.05, most: 1, step: 0.01 },
  joint_threshold: { name: "Threshold", least: 0.05, most: 1, step: 0.01 },
  quota: { name: "Tokens a forward", least: 1, most: 32, step: 1 },
  sequential: { name: "Tokens a forward", least: 1, most: 32, step: 1 },
  factor: { name: "Factor", least: 0.1, most: 4, step: 0.1 },
  entropy_bound: { name: "Entropy bound (nats)", least: 0.01, most: 2, step: 0.01 },
};

/** @param {Decoding} decoding @returns {Settings} */
export function defaultSettings(decoding) {
  const own = decoding.defaults;
  return {
    strategy: own.unmasking.strategy,
    value: own.unmasking.value,
    blockLength: own.block_length,
    retention: own.retention_ratio,
    temperature: 0,
    seed: null,
  };
}

/**
 * What was kept or shared, as far as this model takes it.
 * @param {any} given @param {Decoding} decoding @returns {Settings}
 */
export function fittingSettings(given, decoding) {
  const settings = defaultSettings(decoding);
  if (given === null || typeof given !== "object") return settings;
  if (typeof given.strategy === "string" && given.strategy in decoding.strategies) {
    settings.strategy = given.strategy;
    settings.value = inside(given.value, 1e-6, 1024) ?? decoding.strategies[given.strategy];
  }
  if (!("block_length" in decoding.refused))
    settings.blockLength = Math.round(inside(given.blockLength, 1, 1024) ?? settings.blockLength);
  if (!("retention_ratio" in decoding.refused))
    settings.retention = inside(given.retention, 0.01, decoding.most_retention_ratio) ?? settings.retention;
  settings.temperature = inside(given.temperature, 0, 2) ?? 0;
  settings.seed = Number.isSafeInteger(given.seed) ? given.seed : null;
  return settings;
}

/** @param {any} value @param {number} least @param {number} most */
function inside(value, least, most) {
  return typeof value === "number" && Number.isFinite(value) ? Math.min(Math.max(value, least), most) : null;
}

/**
 * Only what differs from the server's own settings is said.
 * @param {Settings} settings @param {Decoding} decoding
 */
export function diffusionOf(settings, decoding) {
  const own = defaultSettings(decoding);
  /** @type {Record<string, any>} */
  const diffusion = {};
  if (settings.strategy !== own.strategy || settings.value !== own.value)
    diffusion.unmasking = { strategy: settings.strategy, value: settings.value };
  if (settings.blockLength !== own.blockLength) diffusion.block_length = settings.blockLength;
  if (settings.retention !== own.retention) diffusion.retention_ratio = settings.retention;
  return diffusion;
}

/**
 * In a few words, of what can be set.
 * @param {Settings} settings @param {Decoding} decoding
 */
export function labelOf(settings, decoding) {
  const parts = [`${settings.strategy.replace("_", " ")} ${settings.value}`, `block ${settings.blockLength}`];
  if (!("retention_ratio" in decoding.refused)) parts.push(`retention ${settings.retention}`);
  if (settings.temperature > 0) parts.push(`temperature ${settings.temperature}`);
  if (settings.seed !== null) parts.push(`seed ${settings.seed}`);
  return parts.join(" · ");
}

/**
 * The confidence from which tokens are committed, where the confidence is a probability.
 * @param {Settings} settings @param {Decoding} decoding
 */
export function thresholdOf(settings, decoding) {
  const isThreshold = settings.strategy === "threshold" || settings.strategy === "joint_threshold";
  return isThreshold && decoding.defaults.confidence === "probability" ? settings.value : null;
}
