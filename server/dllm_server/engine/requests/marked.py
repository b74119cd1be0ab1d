"""Grammars that begin behind a marker: what has been committed behind one is taken back, and its request is
held to the grammar from there on until the grammar's text is whole."""

from __future__ import annotations

from dllm_server.engine.requests.request import Request
from dllm_server.engine.requests.slots import SlotTable


def follow_marker(table: SlotTable, request: Request, start: int, end: int) -> bool:
    """What a step's commits to the block from ``start`` to ``end`` mean for a request whose grammar begins
    behind a marker; whether tokens were taken back. A marker counts as soon as it is committed, where tokens
    are edited once the block has no mask; what comes before it is filled in as if the block ended with it,
    and then the grammar's text begins."""
    slot, marker = request.slot, request.message.grammar_after
    assert marker is not None and request.match is not None  # noqa: S101
    if request.held_from is not None:
        if request.match.is_over:
            request.free_from, request.held_from = request.held_from + request.match.length, None
            request.match = request.match.anew()
            table.let_go(slot)
        return False
    if request.edits and table.is_masked[slot, start:end].any():
        return False
    first = max(start, int(table.prompt_len[slot]), request.free_from)
    place = table.first_committed(slot, first, end, marker)
    if place is None:
        return False
    request.is_settled = True
    is_taken = table.take_back(slot, place + 1, end)
    if table.is_masked[slot, start:place].any():
        table.closed_from[slot] = place + 1
    else:
        request.held_from = place + 1
        table.hold(slot, place + 1, request.match)
    return is_taken
