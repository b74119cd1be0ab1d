"""The phrases of the task templates that are one token each. None of them occurs inside a task's content."""

from __future__ import annotations

from collections.abc import Iterable

from dllm_server.evaluation.words import Words

from training.tasks import small_talk

SEPARATORS = (", ", "; ", "', '", "['", "']", "[]", " + ", " - ", " =", ".\n", "\n\n", "?\n", ": ", "...")

TEMPLATES = (
    "State the final answer to the following arithmetic problem: ",
    "Sort these numbers in ascending order: ",
    "Sort these numbers in descending order: ",
    "\nPlease follow the instruction below:\n",
    "## 1. Let all your answers be a list of numbers.",
    " Instead of reporting your answer as ",
    "-69, -13, 1, 7, 11, 43, 59, 61",
    "['-69', '-13', '1', '7', '11', '43', '59', '61']",
    ", use ",
    " instead\n",
    "## 2. Convert all numbers in the square brackets as strings.",
    " For example, ",
    "Your task is to sort words in ascending or descending order",
    " using ASCII/Unicode ordering",
    " (using ASCII/Unicode ordering)",
    "Your output should be a comma-separated list of words",
    ", e.g. ",
    "word_1, word_2, word_3",
    "Now, sort these words in ascending order",
    "Now, sort these words in descending order",
    " and return them as a comma-separated list: ",
    "Spell this word backward",
    " (example: sun -> nus): ",
    'How many times does the letter "',
    '" appear in the text: "',
    '"?',
    "Solve the following problem.",
    "Provide you answer as a comma-separated list of words with a space after the comma.",
    "Reverse this list of words: ",
    "Keep all numbers larger than ",
    "Keep all numbers smaller than ",
    "Remove all numbers larger than ",
    "Remove all numbers smaller than ",
    " in this list: ",
    "\nReturn the new list in the same format.",
    "Given a matrix, your job is to generate a list of elements in spiral order",
    ", starting from the top-left element.",
    "The spiral order is clockwise, starting from the top-left corner.",
    " More precisely:\n",
    "- Start from the top-left corner and move right along the top row.\n",
    "- Move down along the right column.\n",
    "- Move left along the bottom row.\n",
    "- Move up along the left column.\n",
    "- Repeat the steps for the inner elements of the matrix until every entry is visited.",
    "Hint: Think of peeling the matrix layer by layer from the outside inward.",
    " Each layer forms a rectangular frame,",
    " and you traverse each frame clockwise starting from its top-left corner.",
    "Your output should be a space-separated list of integers",
    "1 2 3 4 5 6",
    "For the matrix below, what is the list of elements in spiral order?\n",
    "Remember these entries: ",
    ".\nWhat is the value of ",
    ".\nWhat are the values of ",
    "You are a helpful assistant.",
    "Answer briefly.",
)

# Later than the others, whose ids stay as they are.
JSON_PARTS = (
    '{"', '":"', '","', '":', ',"', '"}', '":true', '":false', '":true,"', '":false,"',
    '{"name": "', '", "arguments": {"', '": "', '", "', ', "', '"}}', '": true', '": false',
    '{"type": "function", "function": {"name": "', '", "description": "', '"type": "object"',
    '", "parameters": {"type": "object", "properties": {"', '", "parameters": {"properties": {"',
    '": {"type": "string"', '": {"type": "integer"', '": {"type": "boolean"', '": {"type": "number"',
    '}, "', '"}, "', '"]}, "', '}}, "required": ["', '"}}, "required": ["', '"]}}, "required": ["',
    ', "enum": ["', '"]}}}', '"], "type": "object"}}}', '"]}}', ', "additionalProperties": false',
    '", "title": "',
    "# Tools\n<tools>\n", "</tools>\nA call of a tool is written ", '{"name": NAME, "arguments": OBJECT}',
)  # fmt: skip


def all_phrases() -> tuple[str, ...]:
    """In the order of their ids."""
    later = {*JSON_PARTS, *small_talk.LATER_PHRASES}
    first = {*SEPARATORS, *TEMPLATES, *small_talk.phrases()} - later
    return (*longest_first(first), *longest_first(later))


def longest_first(phrases: Iterable[str]) -> tuple[str, ...]:
    """As the pre-tokenizer tries them: it takes the first alternative that matches."""
    return tuple(sorted(phrases, key=lambda phrase: (-len(phrase), phrase)))


def check_against_content(words: Words) -> None:
    """Raises ValueError if a phrase could swallow a part of a task's words."""
    texts = (" ".join(words.running), " ".join(words.listed))
    for phrase in {*TEMPLATES, *small_talk.phrases()}:
        if any(phrase in text for text in texts):
            raise ValueError(f"phrase {phrase!r} occurs in the word lists: reword or drop it")
