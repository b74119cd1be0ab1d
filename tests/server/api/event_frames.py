"""Server-sent events of a whole stream."""

from __future__ import annotations

import json
from typing import Any


def events_in(text: str) -> list[dict[str, Any]]:
    """Their data, each with the name that it says itself; comments left out."""
    frames = [frame.split("\n") for frame in text.strip().split("\n\n") if not frame.startswith(":")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name for name, _ in frames] == [f"event: {event['type']}" for event in events]
    return events
