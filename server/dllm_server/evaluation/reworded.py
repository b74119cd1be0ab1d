"""The tasks of reasoning-gym, and recall, as people word them: what is asked, and the answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from types import MappingProxyType

from dllm_server.evaluation.recall import make_recall
from dllm_server.evaluation.spelling import invented
from dllm_server.evaluation.wording import MARKS, Wording, inline, quoted, tail, worded
from dllm_server.evaluation.wordings import wordings_of
from dllm_server.evaluation.words import Words

NONE_LEFT = "none"
_MOST_SMALL, _MOST_LARGE = 100, 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """A variant of a task, what fills the slots of its wordings, and the answer."""

    variant: str
    slots: Mapping[str, str]
    answer: str


@dataclass(frozen=True, slots=True)
class Reworded:
    question: str
    answer: str


Drawing = Callable[[random.Random, Words], Asked]


def reword(rng: random.Random, family: str, words: Words, wording: Wording) -> Reworded:
    """A question of ``family`` in one of its trained or of its held-out wordings."""
    asked = DRAWINGS[family](rng, words)
    return Reworded(worded(rng, wordings_of(family), asked.variant, asked.slots, wording), asked.answer)


def draw_words(rng: random.Random, words: Words, count: int, most_letters: int = 10) -> list[str]:
    """Distinct words of the lists and invented ones, all in one case."""
    found: dict[str, None] = {}
    while len(found) < count:
        chance = rng.random()
        word = invented(rng) if chance < 0.2 else rng.choice(words.listed if chance < 0.7 else words.story)
        if 3 <= len(word) <= most_letters and word.isascii() and word.isalpha():
            found[word.lower()] = None
    case = rng.choices((str.lower, str.capitalize, str.upper), (16, 3, 1))[0]
    return [case(word) for word in found]


def _sum(rng: random.Random, _: Words) -> Asked:
    digits, count = rng.randint(1, 3), rng.randint(2, 3)
    low = 0 if digits == 1 else 10 ** (digits - 1)
    numbers = [rng.randint(low, 10**digits - 1) for _ in range(count)]
    chance = rng.random()
    if chance < 0.2:
        slots = {"terms": _terms(rng, [str(number) for number in numbers])}
        return Asked("sum", slots, str(sum(numbers)))
    if chance < 0.35:
        first, second = sorted(numbers[:2], reverse=True)
        return Asked("difference", {"first": str(first), "second": str(second)}, str(first - second))
    plus, minus = rng.choice(((" + ", " - "), (" + ", " - "), ("+", "-"), (" plus ", " minus ")))
    expression, total = str(numbers[0]), numbers[0]
    for number in numbers[1:]:
        is_sum = rng.random() < 0.5
        expression += f"{plus if is_sum else minus}{number}"
        total += number if is_sum else -number
    return Asked("expression", {"x": expression}, str(total))


def _terms(rng: random.Random, terms: Sequence[str]) -> str:
    if len(terms) == 1:
        return terms[0]
    if len(terms) == 2:
        return rng.choice((" and ", " and ", ", ")).join(terms)
    return rng.choice((", ".join(terms), f"{', '.join(terms[:-1])} and {terms[-1]}"))


def _numbers(rng: random.Random, count: int) -> list[str]:
    """Distinct decimal literals, whole ones half of the time."""
    least, most = rng.choice(((-_MOST_SMALL, _MOST_SMALL), (0, _MOST_SMALL), (0, _MOST_LARGE)))
    places = 0 if rng.random() < 0.5 else 2
    found: dict[float, str] = {}
    while len(found) < count:
        literal = f"{rng.uniform(least, most):.{rng.randint(0, places)}f}"
        if float(literal) != 0:
            found[float(literal)] = literal
    return list(found.values())


def _listed(rng: random.Random, things: Sequence[str]) -> dict[str, str]:
    return {"list": inline(rng, things), "tail": tail(rng, things)}


def _number_sorting(rng: random.Random, _: Words) -> Asked:
    numbers = _numbers(rng, rng.randint(3, 6))
    variant = rng.choice(("ascending", "descending"))
    ordered = sorted(numbers, key=float, reverse=variant == "descending")
    return Asked(variant, _listed(rng, numbers), ", ".join(ordered))


def _word_sorting(rng: random.Random, words: Words) -> Asked:
    is_long = rng.random() < 0.1
    found = draw_words(rng, words, rng.randint(6, 7) if is_long else rng.randint(3, 5), 6 if is_long else 10)
    if rng.random() < 0.3:  # words that share a beginning are rare by chance and the hardest to order
        first = rng.choice(found)
        alike = first[:2] + invented(rng)
        if len(alike) <= 10:
            found[rng.randrange(len(found))] = alike.upper() if first.isupper() else alike
        found = list(dict.fromkeys(found))
    variant = rng.choice(("ascending", "descending"))
    ordered = sorted(found, reverse=variant == "descending")
    return Asked(variant, _listed(rng, found), ", ".join(ordered))


def _spelling(rng: random.Random, words: Words) -> Asked:
    (word,) = draw_words(rng, words, 1)
    slots = {"word": quoted(rng, word), "last": rng.choice((": ", ": ", " ", ":\n")) + quoted(rng, word)}
    return Asked("word", slots, word[::-1])


def _counting(rng: random.Random, words: Words) -> Asked:
    count = 1 if rng.random() < 0.4 else rng.randint(2, 8)
    text = " ".join(draw_words(rng, words, count))
    letters = sorted(set(text.lower()) - {" "})
    letter = rng.choice(letters if rng.random() < 0.85 else ascii_lowercase)
    shown = letter.upper() if text.isupper() else letter
    slots = {"letter": rng.choice(("{}", "{}", '"{}"', "'{}'")).replace("{}", shown)}
    slots["text"] = quoted(rng, text) if count == 1 else f'"{text}"' if rng.random() < 0.8 else text
    return Asked("letter", slots, str(text.lower().count(letter)))


def _reversal(rng: random.Random, words: Words) -> Asked:
    found = draw_words(rng, words, rng.randint(3, 6), 8)
    return Asked("words", _listed(rng, found), ", ".join(reversed(found)))


def _filtering(rng: random.Random, _: Words) -> Asked:
    numbers = _numbers(rng, rng.randint(3, 6))
    values = [float(number) for number in numbers]
    bound = f"{rng.uniform(min(values), max(values)):.{0 if rng.random() < 0.6 else 1}f}"
    if float(bound) in values or float(bound) == 0:
        return _filtering(rng, _)
    variant = rng.choice(("larger", "smaller"))
    kept = [n for n in numbers if (float(n) > float(bound)) == (variant == "larger")]
    slots = {"bound": bound, "list": inline(rng, numbers), "tail": tail(rng, numbers, MARKS)}
    return Asked(variant, slots, ", ".join(kept) or NONE_LEFT)


def _spiral(rng: random.Random, _: Words) -> Asked:
    side = rng.randint(2, 4)
    rows = [[str(rng.randint(0, 9)) for _ in range(side)] for _ in range(side)]
    match rng.randrange(5):
        case 0:
            shown = "[" + ", ".join("[" + ", ".join(row) + "]" for row in rows) + "]"
        case 1:
            shown = "; ".join(" ".join(row) for row in rows)
        case _:
            shown = "\n".join(" ".join(row) for row in rows)
    slots = {"matrix": rng.choice((":\n", ":\n", "\n", ": ", ":\n\n")) + shown}
    return Asked("matrix", slots, " ".join(spiral(rows)))


def spiral(matrix: Sequence[Sequence[str]]) -> list[str]:
    """The elements clockwise from outside in, from the top-left corner on."""
    rows = [list(row) for row in matrix]
    found: list[str] = []
    while rows:
        found += rows.pop(0)
        rows = [list(column) for column in zip(*rows, strict=True)][::-1]
    return found


def _recall(rng: random.Random, _: Words) -> Asked:
    entries = rng.randint(4, 20)
    recall = make_recall(rng, entries=entries, asked=rng.choice((1, 1, rng.randint(2, 4))))
    equals = rng.choice(("=", "=", ": ", " = ", " is "))
    separator = rng.choice(("; ", ", ", "\n") if equals != " is " else (", ", "; "))
    listed = separator.join(f"{key}{equals}{value}" for key, value in recall.entries)
    variant = "one" if len(recall.asked) == 1 else "several"
    return Asked(variant, {"entries": listed, "keys": _terms(rng, recall.asked)}, recall.answer)


DRAWINGS: Mapping[str, Drawing] = MappingProxyType(
    {
        "chain_sum": _sum,
        "number_sorting": _number_sorting,
        "word_sorting": _word_sorting,
        "spell_backward": _spelling,
        "letter_counting": _counting,
        "word_sequence_reversal": _reversal,
        "number_filtering": _filtering,
        "spiral_matrix": _spiral,
        "recall": _recall,
    }
)
