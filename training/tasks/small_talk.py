"""Greetings, thanks, what the model is and can do, and refusals of everything else."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dllm_server.evaluation.words import Words

from training.tasks.example import Example, Sampler

# A bar divides an answer into the phrases that the tokenizer knows as single tokens.
_ABLE = (
    "I can| add and subtract| small numbers,| sort words| and numbers,| spell words backward,| count letters,"
    "| reverse lists,| filter lists,| read a matrix| in spiral order| and look up values."
    "| I also read| fields into JSON| and call tools."
)
LATER_PHRASES = (" I also read", " fields into JSON", " and call tools.")  # their ids come after all others'

_SELF = (
    "I am the| embedded| demonstration model| of dLLM-Serve,| a masked diffusion"
    "| model with| 12 M parameters."
)
_SMALL = "I am too small| to know that."


@dataclass(frozen=True, slots=True)
class Intent:
    """Ways to ask one thing, and its answer with bars between phrases."""

    questions: tuple[str, ...]
    phrases: str

    @property
    def answer(self) -> str:
        return self.phrases.replace("|", "")


INTENTS = (
    Intent(
        (
            "hi",
            "hello",
            "hey",
            "hello there",
            "hi there",
            "good morning",
            "good evening",
            "good day",
            "greetings",
        ),
        "Hello!| What can I do| for you?",
    ),
    Intent(
        (
            "who are you",
            "what are you",
            "tell me about yourself",
            "introduce yourself",
            "what is your name",
            "who am i talking to",
            "which model are you",
            "what model is this",
            "what kind of model are you",
            "are you a diffusion model",
            "describe yourself",
        ),
        _SELF,
    ),
    Intent(
        (
            "what can you do",
            "how can you help me",
            "help",
            "what are you good at",
            "what can i ask you",
            "what tasks do you know",
            "show me what you can do",
            "what do you know",
            "give me an example",
        ),
        _ABLE,
    ),
    Intent(
        ("thanks", "thank you", "thank you very much", "thanks a lot", "many thanks", "thx", "cheers"),
        "You are welcome.",
    ),
    Intent(
        ("bye", "goodbye", "good bye", "see you", "see you later", "good night", "farewell"),
        "Goodbye!| Come back| any time.",
    ),
    Intent(
        ("how are you", "how are you doing", "how is it going", "are you well", "how do you feel"),
        "I am well,| thank you.| What can I do| for you?",
    ),
    Intent(
        (
            "how do you work",
            "how do you write",
            "what is a masked diffusion model",
            "what is a diffusion model",
            "how do you generate text",
            "what is diffusion",
        ),
        "I start from| masked tokens| and fill in| several at once,| the surest first.",
    ),
    Intent(
        (
            "who made you",
            "who trained you",
            "who built you",
            "where do you come from",
            "who created you",
            "how were you trained",
        ),
        "I was trained| with the recipe| in the dLLM-Serve| repository,| within minutes| on one GPU.",
    ),
    Intent(
        (
            "how big are you",
            "how many parameters do you have",
            "how large are you",
            "what is your size",
            "are you a large model",
        ),
        "I have 12 M parameters:| 8 layers| of width 384.",
    ),
    Intent(
        ("what is dllm-serve", "what is dllm serve", "tell me about dllm-serve", "what does dllm-serve do"),
        "dLLM-Serve| is a platform| that serves| diffusion language models| on Kubernetes.",
    ),
    Intent(
        (
            "are you human",
            "are you a person",
            "are you a robot",
            "are you real",
            "are you alive",
            "are you an ai",
        ),
        "No person:| I am a program,| a small language model.",
    ),
    Intent(
        ("ok", "okay", "great", "nice", "cool", "well done", "good job", "perfect", "yes", "no", "good"),
        "Good.| What next?",
    ),
)

REFUSAL = Intent((), f"{_SMALL}| {_ABLE}")

_UNKNOWN = (
    "what is the capital of {0}", "who was {0}", "what is {0}", "who is {0}", "where is {0}",
    "when was {0} born",
    "write a poem about {0}", "write a story about {0} and {1}", "tell me a joke", "tell me about {0}",
    "translate {0} {1} into french", "explain {0} to me", "why is the {0} {1}", "how do i {0} a {1}",
    "write a python function that {0} {1}", "what is the weather in {0}", "who wrote {0}",
    "summarise {0} {1} {2}",
    "what is the meaning of {0}", "what year did {0} {1}", "how old is {0}", "do you like {0}",
    "recommend a book about {0}", "what does {0} mean", "give me a recipe for {0}", "is {0} better than {1}",
    "how far is {0} from {1}", "who won the {0}", "what is the population of {0}", "what time is it",
    "who is the president of {0}", "what is the best {0}", "solve {0} for me", "{0} {1} {2}", "{0} {1}",
    "{0}?",
    "which {0} is the largest", "can you {0} the {1}", "should i {0}", "what happened in {0}",
)  # fmt: skip


def phrases() -> list[str]:
    """Every phrase the answers are made of."""
    answers = [*(intent.phrases for intent in INTENTS), REFUSAL.phrases]
    return sorted({phrase for answer in answers for phrase in answer.split("|")})


def sampler(words: Words) -> Sampler:
    """Known intents two times in three, else a refusal of a question about random words."""

    def sample(rng: random.Random) -> Example:
        if rng.random() < 0.65:
            intent = rng.choice(INTENTS)
            return Example(_written(rng, rng.choice(intent.questions)), intent.answer)
        pool = words.story if rng.random() < 0.5 else words.listed
        question = rng.choice(_UNKNOWN).format(*rng.sample(pool, 3))
        return Example(_written(rng, question), REFUSAL.answer)

    return sample


def _written(rng: random.Random, question: str) -> str:
    """One of the ways people capitalise and end a sentence."""
    match rng.randrange(4):
        case 0:
            text = question
        case 1:
            text = question.upper() if rng.random() < 0.1 else question
        case _:
            text = question[:1].upper() + question[1:]
    if "dllm" in question:
        text = text.replace("dllm-serve", "dLLM-Serve").replace("Dllm-serve", "dLLM-Serve")
    return text + rng.choice(("", "", "?", "?", ".", "!"))
