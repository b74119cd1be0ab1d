"""Edits of children by others, as news for Events. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.reporting.conditions import Transition
from dllm_operator.reporting.reason import NewsReason
from dllm_operator.writing.apply import Edit

MOST_FIELDS = 8


def edit_news(edits: Iterable[Edit]) -> list[Transition]:
    """Of each writer the names of its fields, never their values."""
    news = []
    for edit in edits:
        fields = ", ".join(edit.fields[:MOST_FIELDS])
        what = f"{edit.child.kind} {edit.child.name}: {edit.manager} has set {fields}"
        left = "again and again, and is left alone until the resource changes"
        then = left if edit.is_left else "which is undone: use podTemplate of the resource"
        reason = NewsReason.DRIFTED if edit.is_left else NewsReason.EDIT_UNDONE
        news.append(Transition(ConditionType.PROGRESSING, reason, f"{what}, {then}", is_warning=True))
    return news
