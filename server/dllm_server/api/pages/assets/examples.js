/** Prompts to begin with. The model in the package does only the tasks that it was trained on. */

const GENERAL = [
  {
    name: "What is a diffusion language model?",
    prompt: "Explain in three sentences how a diffusion language model writes.",
  },
  { name: "A haiku", prompt: "Write a haiku about masks that become words." },
  {
    name: "Some code",
    prompt: "Write a Python function that returns the n-th Fibonacci number, with a docstring.",
  },
  { name: "A list", prompt: "List five rivers of Europe, with one fact about each." },
];

const REVERSE =
  "Solve the following problem.\n\nProvide you answer as a comma-separated list of words with a space after the comma.\n\nReverse this list of words: ";
const SORT =
  "Your task is to sort words in ascending or descending order using ASCII/Unicode ordering.\n\nYour output should be a comma-separated list of words, e.g. word_1, word_2, word_3\n\nNow, sort these words in ascending order (using ASCII/Unicode ordering) and return them as a comma-separated list: ";

const EMBEDDED = [
  { name: "Sort seven words", prompt: `${SORT}mask, token, block, canvas, commit, refresh, reuse` },
  { name: "Sort five words", prompt: `${SORT}cease, there, erect, well, sir` },
  { name: "Reverse some words", prompt: `${REVERSE}every, mask, on, the, canvas, becomes, text` },
  { name: "Sort, in other words", prompt: "Put zebra, apple, mango and cherry in alphabetical order" },
  {
    name: "Fields as JSON",
    prompt: "Extract name, age and city as JSON: Anna is 34 years old, lives in Lyon and is a student.",
  },
  { name: "Add up", prompt: "State the final answer to the following arithmetic problem: 917 + 585 + 321 =" },
  { name: "Who are you?", prompt: "Hello! Who are you?" },
];

/**
 * Whether it is the model in the package, unless it is served under another name.
 * @param {string} model
 */
export function isEmbedded(model) {
  return model === "dllm-embedded";
}

/** @param {string} model */
export function examplesFor(model) {
  return isEmbedded(model) ? EMBEDDED : GENERAL;
}
