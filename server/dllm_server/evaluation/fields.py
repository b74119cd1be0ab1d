"""Fields read out of a sentence into a small JSON object. No dependency but the standard library."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dllm_server.evaluation.spelling import invented
from dllm_server.evaluation.wording import Wording, after, fill, worded
from dllm_server.evaluation.wordings import wordings_of

_NAMES = (
    "Anna", "Ben", "Carla", "David", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam",
    "Noah", "Olga", "Paul", "Quentin", "Rosa", "Samir", "Tara", "Umar", "Vera", "Walter", "Yara", "Zoe",
)  # fmt: skip
_CITIES = (
    "Lyon", "Oslo", "Rome", "Cairo", "Lima", "Delhi", "Kyoto", "Quito", "Riga", "Perth", "Dakar", "Bergen",
    "Hanoi", "Turin", "Accra", "Malmo", "Berlin", "Paris", "Madrid", "Vienna", "Boston", "Chicago", "Toronto",
)  # fmt: skip
_THINGS = (
    "lamps", "chairs", "mugs", "books", "pens", "apples", "shirts", "tables", "candles", "clocks", "boxes",
    "towels", "bottles", "keys", "bags", "ropes", "tiles", "wheels", "scarves",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """``values`` are examples of a string, all of an enum, or what a sentence says where a boolean is
    true and where it is not. An integer lies in ``span``."""

    kind: str
    values: tuple[str, ...] = ()
    span: tuple[int, int] = (0, 0)

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.values)} if self.kind == "enum" else {"type": self.kind}


@dataclass(frozen=True, slots=True)
class Domain:
    """Fields in their usual order, and sentences that tell all of them."""

    fields: Mapping[str, Field]
    sentences: tuple[str, ...]


def _text(*values: str) -> Field:
    return Field("string", values)


def _whole(least: int, most: int) -> Field:
    return Field("integer", span=(least, most))


DOMAINS = (
    Domain(
        {
            "name": _text(*_NAMES),
            "age": _whole(1, 99),
            "city": _text(*_CITIES),
            "student": Field("boolean", ("is a student", "is not a student")),
        },
        (
            "{name} is {age} years old, lives in {city} and {student}.",
            "{name}, {age}, from {city}, {student}.",
            "In {city} lives {name}, who is {age} and {student}.",
            "At {age}, {name} {student} in {city}.",
            "My friend {name} {student}, comes from {city} and turned {age} last week.",
        ),
    ),
    Domain(
        {
            "customer": _text(*_NAMES),
            "item": _text(*_THINGS),
            "quantity": _whole(2, 60),
            "size": Field("enum", ("small", "medium", "large")),
            "gift": Field("boolean", ("as a gift", "not as a gift")),
        },
        (
            "{customer} ordered {quantity} {size} {item}, {gift}.",
            "{quantity} {item}, size {size}, for {customer}, {gift}.",
            "Please send {customer} {quantity} {size} {item} {gift}.",
            "{size} {item} were bought by {customer}: {quantity} of them, {gift}.",
        ),
    ),
    Domain(
        {
            "guest": _text(*_NAMES),
            "hotel": _text("Astoria", "Bellevue", "Central", "Grand", "Metropol", "Royal", "Savoy", "Plaza"),
            "nights": _whole(1, 30),
            "room": Field("enum", ("single", "double", "suite")),
            "breakfast": Field("boolean", ("with breakfast", "without breakfast")),
        },
        (
            "{guest} books a {room} at the {hotel} for {nights} nights {breakfast}.",
            "{nights} nights in a {room} {breakfast} for {guest} at hotel {hotel}.",
            "The {hotel} has a {room} for {guest}, {breakfast}, {nights} nights.",
            "{guest} stays {nights} nights at the {hotel}, {room}, {breakfast}.",
        ),
    ),
    Domain(
        {
            "city": _text(*_CITIES),
            "temperature": _whole(-20, 40),
            "sky": Field("enum", ("sunny", "cloudy", "rainy", "snowy")),
            "windy": Field("boolean", ("windy", "calm")),
        },
        (
            "In {city} it is {sky} and {windy} at {temperature} degrees.",
            "{city}: {temperature} degrees, {sky}, {windy}.",
            "It is {temperature} degrees in {city} today, {sky} and {windy}.",
            "A {windy}, {sky} day in {city} with {temperature} degrees.",
        ),
    ),
    Domain(
        {
            "title": _text(
                "Rivers", "Harbour", "Winter", "Islands", "Lanterns", "Orchard", "Tides", "Voices", "Embers"
            ),
            "author": _text(*_NAMES),
            "pages": _whole(20, 990),
            "language": Field("enum", ("English", "French", "German", "Spanish")),
            "available": Field("boolean", ("is available", "is not available")),
        },
        (
            "The {language} book {title} by {author} has {pages} pages and {available}.",
            "{author} wrote {title}, {pages} pages in {language}, which {available}.",
            "{title} ({language}, {pages} pages) by {author} {available}.",
            "With {pages} pages, {title} by {author} {available} in {language}.",
        ),
    ),
    Domain(
        {
            "owner": _text(*_NAMES),
            "pet": _text("Bella", "Coco", "Luna", "Max", "Milo", "Nala", "Rex", "Simba", "Ziggy", "Biscuit"),
            "kind": Field("enum", ("cat", "dog", "bird", "rabbit")),
            "age": _whole(1, 20),
            "vaccinated": Field("boolean", ("is vaccinated", "is not vaccinated")),
        },
        (
            "{owner} has a {kind} named {pet}, which is {age} and {vaccinated}.",
            "{pet}, the {age} year old {kind} of {owner}, {vaccinated}.",
            "The {kind} {pet} belongs to {owner}, {vaccinated} and is {age} years old.",
            "{owner} says that {pet} {vaccinated}: a {kind} of {age} years.",
        ),
    ),
    Domain(
        {
            "from": _text(*_CITIES),
            "to": _text(*_CITIES),
            "hour": _whole(0, 23),
            "class": Field("enum", ("first", "second")),
            "direct": Field("boolean", ("direct", "with a change")),
        },
        (
            "A {class} class ticket from {from} to {to} at {hour}, {direct}.",
            "The train to {to} leaves {from} at {hour}, {direct}, {class} class.",
            "From {from} to {to}, {class} class, {direct}, at {hour}.",
            "At {hour} I travel {class} class to {to}, starting in {from}, {direct}.",
        ),
    ),
    Domain(
        {
            "product": _text(*_THINGS),
            "price": _whole(1, 900),
            "color": Field("enum", ("red", "green", "blue", "black", "white")),
            "stock": Field("boolean", ("are in stock", "are sold out")),
        },
        (
            "The {color} {product} cost {price} dollars and {stock}.",
            "{product} in {color} {stock} and cost {price}.",
            "{price} dollars for {color} {product}, which {stock}.",
            "Our {product} {stock}: {color}, {price} dollars.",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class FieldsQuestion:
    """``answer`` is the object as text, without white space, its keys in the order of ``schema``."""

    question: str
    answer: str
    schema: Mapping[str, Any]


def make_fields(rng: random.Random, wording: Wording) -> FieldsQuestion:
    """All fields of a domain in their usual order, or two to four of them in any order, named."""
    domain = rng.choice(DOMAINS)
    told, values = _values(rng, domain)
    sentence = fill(rng.choice(domain.sentences), told)
    variant, keys = "all", list(domain.fields)
    if rng.random() < 0.85:
        variant, keys = "keys", rng.sample(keys, rng.randint(2, 4))
    slots = {"sentence": sentence, "after": after(rng, sentence), "keys": _named(rng, keys)}
    question = worded(rng, wordings_of("json_fields"), variant, slots, wording)
    schema = {
        "type": "object",
        "properties": {key: domain.fields[key].schema for key in keys},
        "required": keys,
        "additionalProperties": False,
    }
    answer = json.dumps({key: values[key] for key in keys}, separators=(",", ":"), ensure_ascii=False)
    return FieldsQuestion(question, answer, MappingProxyType(schema))


def follows(answer: str, schema: Mapping[str, Any]) -> bool:
    """Whether ``answer`` is JSON with the keys of ``schema``, each value of its type and in its enum."""
    try:
        found = json.loads(answer)
    except ValueError:
        return False
    kinds = {"string": str, "integer": int, "boolean": bool}
    properties = schema["properties"]
    return (
        isinstance(found, dict)
        and found.keys() == properties.keys()
        and all(
            type(value) is kinds[properties[key]["type"]] and value in properties[key].get("enum", [value])
            for key, value in found.items()
        )
    )


def same_object(answer: str, expected: str) -> bool:
    """Whether both texts are the same JSON, whatever the white space and the order of keys."""
    try:
        return bool(json.loads(answer) == json.loads(expected))
    except ValueError:
        return False


def _values(rng: random.Random, domain: Domain) -> tuple[dict[str, str], dict[str, Any]]:
    """What the sentence says of each field, and its value."""
    told: dict[str, str] = {}
    values: dict[str, Any] = {}
    for key, field in domain.fields.items():
        match field.kind:
            case "integer":
                values[key] = rng.randint(*field.span)
                told[key] = str(values[key])
            case "boolean":
                values[key] = rng.random() < 0.5
                told[key] = field.values[0 if values[key] else 1]
            case "enum":
                values[key] = told[key] = rng.choice(field.values)
            case _:
                is_new = rng.random() < 0.4
                value = invented(rng) if is_new else rng.choice(field.values)
                told[key] = values[key] = (
                    value.capitalize() if is_new and field.values[0][0].isupper() else value
                )
    return told, values


def _named(rng: random.Random, keys: Sequence[str]) -> str:
    quote = rng.choice(("", "", "", '"'))
    shown = [f"{quote}{key}{quote}" for key in keys]
    if rng.random() < 0.4:
        return f"{', '.join(shown[:-1])} and {shown[-1]}"
    return ", ".join(shown)
