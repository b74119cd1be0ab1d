"""How requests ask for text of a certain structure, in OpenAI's words, vLLM's and SGLang's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import ListOf, RequestModel, Text
from dllm_server.structure.grammar import ANY_OBJECT, Grammar, GrammarKind

_OF_JSON_SCHEMA = frozenset({"name", "description", "schema", "strict"})
_STRUCTURES = {
    "json": GrammarKind.JSON_SCHEMA,
    "regex": GrammarKind.REGEX,
    "choice": GrammarKind.CHOICE,
    "grammar": GrammarKind.EBNF,
    "json_object": GrammarKind.JSON_SCHEMA,
}
# Of the compilers that vLLM chooses from: white space is never free here.
_HINTS = frozenset({"disable_any_whitespace", "disable_fallback", "whitespace_pattern"})


@dataclass(frozen=True, slots=True)
class AskedGrammar:
    """A grammar, the parameter that asked for it, and the token behind which it holds, None for all of the
    text."""

    param: str
    grammar: Grammar
    after: int | None = None


def _text_of(value: Any) -> str:
    """As the client wrote it, or as JSON."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("text holds a lone surrogate, which no UTF-8 can carry") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("it is nested too deeply, or holds NaN or Infinity") from error
    return text


def _check_schema(value: Any) -> str | None:
    """The text of a schema."""
    if value is None:
        return None
    if not isinstance(value, str | dict | bool):
        raise ValueError("a schema is an object, or the text of one")
    return _text_of(value)


def _check_json_schema(given: dict[str, Any]) -> dict[str, Any]:
    for name in given.keys() - _OF_JSON_SCHEMA:
        raise PydanticCustomError("unknown_parameter", "is not known here", {"param": name})
    if not isinstance(given.get("schema"), dict | bool):
        raise PydanticCustomError("schema_missing", "is to be a JSON schema", {"param": "schema"})
    return given | {"schema": _text_of(given["schema"])}


def _check_structures(given: Any) -> dict[str, str] | None:
    """Kind -> text of the one structure asked for."""
    if given is None or given is False:
        return None
    if not isinstance(given, dict):
        raise ValueError("structured_outputs is an object")
    asked = {name: value for name, value in given.items() if value not in (None, False)}
    for name in asked.keys() - _STRUCTURES.keys() - _HINTS:
        raise PydanticCustomError("unknown_parameter", "is not supported by this server", {"param": name})
    texts = {}
    for name in asked.keys() & _STRUCTURES.keys():
        value = asked[name]
        is_right = {
            "json": isinstance(value, str | dict | bool),
            "choice": isinstance(value, list),
            "json_object": value is True,
        }
        if not is_right.get(name, isinstance(value, str)):
            raise PydanticCustomError("wrong_type", "is of another type than expected", {"param": name})
        texts[name] = ANY_OBJECT.text if name == "json_object" else _text_of(value)
    return texts


Schema = Annotated[
    Text | None, BeforeValidator(_check_schema, json_schema_input_type=dict[str, Any] | str | bool | None)
]


class ResponseFormat(RequestModel):
    type: Literal["text", "json_object", "json_schema"] = Field(
        description="json_object: the answer is a JSON object; json_schema: it follows json_schema.schema."
    )
    json_schema: Annotated[dict[str, Any], AfterValidator(_check_json_schema)] | None = Field(
        None,
        description="name, schema, description and strict; schema is always enforced, whatever strict says.",
    )

    @model_validator(mode="after")
    def _a_schema_is_there_where_it_is_asked_for(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError(
                "schema_missing", "belongs to type json_schema, and to no other", {"param": "json_schema"}
            )
        return self


class StructuredRequest(RequestModel):
    """At most one of its fields asks for a structure."""

    response_format: ResponseFormat | None = Field(
        None, description="The answer is a JSON object, or JSON that follows a schema, without white space."
    )
    structured_outputs: Annotated[
        dict[str, str] | None,
        BeforeValidator(_check_structures, json_schema_input_type=dict[str, Any] | Literal[False] | None),
    ] = Field(
        None,
        description="As vLLM: one of json (a schema), json_object (true), regex, choice (a list of texts) "
        "and grammar (EBNF or Lark).",
    )
    guided_json: Schema = Field(None, description="Older name of structured_outputs.json.")
    guided_regex: Text | None = Field(None, description="Older name of structured_outputs.regex.")
    guided_choice: Annotated[ListOf[Text], Field(min_length=1)] | None = Field(
        None, description="Older name of structured_outputs.choice."
    )
    guided_grammar: Text | None = Field(None, description="Older name of structured_outputs.grammar.")
    json_schema: Schema = Field(None, description="SGLang's name of structured_outputs.json.")
    regex: Text | None = Field(None, description="SGLang's name of structured_outputs.regex.")
    ebnf: Text | None = Field(None, description="SGLang's name of structured_outputs.grammar.")

    @model_validator(mode="after")
    def _one_structure(self) -> Self:
        asked = [one.param for one in self._asked()]
        if len(asked) > 1:
            raise PydanticCustomError(
                "one_structure", f"cannot go with {asked[0]}: send one of them", {"param": asked[1]}
            )
        return self

    @property
    def asked_grammar(self) -> AskedGrammar | None:
        return next(self._asked(), None)

    def _asked(self) -> Iterator[AskedGrammar]:
        if (asked := self.response_format) is not None:
            if asked.type == "json_object":
                yield AskedGrammar("response_format", ANY_OBJECT)
            elif asked.json_schema is not None:
                grammar = Grammar(GrammarKind.JSON_SCHEMA, asked.json_schema["schema"])
                yield AskedGrammar("response_format.json_schema.schema", grammar)
        for name, text in (self.structured_outputs or {}).items():
            yield AskedGrammar(f"structured_outputs.{name}", Grammar(_STRUCTURES[name], text))
        choice = None if self.guided_choice is None else _text_of(self.guided_choice)
        others: Mapping[str, tuple[GrammarKind, str | None]] = {
            "guided_json": (GrammarKind.JSON_SCHEMA, self.guided_json),
            "guided_regex": (GrammarKind.REGEX, self.guided_regex),
            "guided_choice": (GrammarKind.CHOICE, choice),
            "guided_grammar": (GrammarKind.EBNF, self.guided_grammar),
            "json_schema": (GrammarKind.JSON_SCHEMA, self.json_schema),
            "regex": (GrammarKind.REGEX, self.regex),
            "ebnf": (GrammarKind.EBNF, self.ebnf),
        }
        for name, (kind, asked_text) in others.items():
            if asked_text is not None:
                yield AskedGrammar(name, Grammar(kind, asked_text))
