"""What the clients of structure ask for. Everything in it has a bound, so that any model comes to its end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

QUESTION = "Ada has tea and two biscuits at four."
MAX_TOKENS = 240


class Snack(BaseModel, extra="forbid"):
    what: Literal["biscuit", "apple"]
    count: Annotated[int, Field(ge=1, le=9)]


class Order(BaseModel, extra="forbid"):
    """What somebody has ordered."""

    name: Annotated[str, Field(max_length=6)]
    drink: Literal["tea", "coffee"]
    snacks: Annotated[list[Snack], Field(min_length=1, max_length=2)]
    is_paid: bool
    note: Annotated[str, Field(max_length=4)] | None


def fields_of(made: Any) -> dict[str, Any]:
    """Of what a client has made, which must be of the class that it was given."""
    assert isinstance(made, Order), type(made)
    return made.model_dump(mode="json")
