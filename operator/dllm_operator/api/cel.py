"""Rules that the API server evaluates (CEL), as JSON schema extensions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pydantic.config import JsonDict

VALIDATIONS = "x-kubernetes-validations"
_PLACEHOLDER = re.compile(r"\{((?:[^{}]|\{[^{}]*\})*)\}")  # maps have braces of their own


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``x-kubernetes-validations``.

    ``message`` says what is wrong and what to do; ``naming`` is the same sentence with CEL expressions in
    braces, which the API server fills in and prefers. ``field_path`` is relative to the rule's object.
    """

    rule: str
    message: str
    naming: str | None = None
    field_path: str | None = None
    reason: str | None = None

    def to_json(self) -> JsonDict:
        entry: JsonDict = {"rule": self.rule, "message": self.message}
        expression = _format_call(self.naming) if self.naming is not None else None
        optional = {"messageExpression": expression, "fieldPath": self.field_path, "reason": self.reason}
        return entry | {name: value for name, value in optional.items() if value is not None}


def _format_call(sentence: str) -> str:
    """``"min {self.min} is odd"`` -> ``"min %s is odd".format([self.min])``, whose cost CEL can bound."""
    values = _PLACEHOLDER.findall(sentence)
    template = json.dumps(_PLACEHOLDER.sub("%s", sentence.replace("%", "%%")))
    return f"{template}.format([{', '.join(values)}])"


def validations(*rules: Rule) -> JsonDict:
    """What to give as ``json_schema_extra`` of a class or field that the rules hold for."""
    return {VALIDATIONS: [rule.to_json() for rule in rules]}
