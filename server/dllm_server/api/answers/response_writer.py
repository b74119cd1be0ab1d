"""The items of a response and the events that tell of them, from the parts of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dllm_server.api.answers.answer import derived_id
from dllm_server.api.schemas.response_body import (
    ItemStatus,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningText,
    ResponseBody,
)
from dllm_server.api.text.parts import Called, Part, Said, Thought

Event = dict[str, Any]


class ResponseWriter:
    """Adds parts to a response, item by item; whatever the pieces of the parts, the items are the same.

    Each method gives the events of what it does, numbered through.
    """

    def __init__(self, response: ResponseBody) -> None:
        self.response = response
        self._number = 0
        self._open: OutputMessage | OutputReasoning | None = None  # the last item

    def begin(self) -> list[Event]:
        return [self._of_response("response.created"), self._of_response("response.in_progress")]

    def add(self, parts: Iterable[Part]) -> list[Event]:
        events: list[Event] = []
        for part in parts:
            match part:
                case Called():
                    events += [*self._close("completed"), *self._call(part)]
                case Said(text):
                    events += self._say(text)
                case Thought(text):
                    events += self._think(text)
        return events

    def end(self, response: ResponseBody) -> list[Event]:
        """``response`` says how it ended; its items are those that were added."""
        events = self._close("completed" if response.status == "completed" else "incomplete")
        response.output = self.response.output
        self.response = response
        return [*events, self._of_response(f"response.{response.status}")]

    def _say(self, text: str) -> list[Event]:
        events: list[Event] = []
        if not isinstance(self._open, OutputMessage):
            events = self._close("completed")
            message = OutputMessage(id=self._id("msg"), status="in_progress", content=[])
            events.append(self._opened(message))
            message.content.append(OutputText(text=""))
            self._open = message
            events.append(self._of_part("response.content_part.added", part=OutputText(text="").model_dump()))
        assert isinstance(self._open, OutputMessage)  # noqa: S101
        self._open.content[0].text += text
        return [*events, self._of_part("response.output_text.delta", delta=text, logprobs=[])]

    def _think(self, text: str) -> list[Event]:
        events: list[Event] = []
        if not isinstance(self._open, OutputReasoning):
            events = self._close("completed")
            thoughts = OutputReasoning(id=self._id("rs"), status="in_progress", content=[])
            events.append(self._opened(thoughts))
            thoughts.content.append(ReasoningText(text=""))
            self._open = thoughts
        assert isinstance(self._open, OutputReasoning)  # noqa: S101
        self._open.content[0].text += text
        return [*events, self._of_part("response.reasoning_text.delta", delta=text)]

    def _call(self, called: Called) -> list[Event]:
        """A call comes whole."""
        call = OutputCall(
            id=self._id("fc"), status="in_progress", call_id=self._id("call"), name=called.name, arguments=""
        )
        events = [self._opened(call)]
        call.arguments = called.arguments
        of_call = {"item_id": call.id, "output_index": self._place}
        events.append(self._event("response.function_call_arguments.delta", **of_call, delta=call.arguments))
        events.append(
            self._event(
                "response.function_call_arguments.done", **of_call, name=call.name, arguments=call.arguments
            )
        )
        return [*events, self._done(call, "completed")]

    def _close(self, status: ItemStatus) -> list[Event]:
        """End the item that is open, if one is."""
        item = self._open
        events: list[Event] = []
        match item:
            case None:
                return []
            case OutputMessage():
                (part,) = item.content
                events = [
                    self._of_part("response.output_text.done", text=part.text, logprobs=[]),
                    self._of_part("response.content_part.done", part=part.model_dump()),
                ]
            case OutputReasoning():
                events = [self._of_part("response.reasoning_text.done", text=item.content[0].text)]
        self._open = None
        return [*events, self._done(item, status)]

    @property
    def _place(self) -> int:
        return len(self.response.output) - 1

    def _id(self, kind: str) -> str:
        return f"{kind}_{derived_id(self.response.id, len(self.response.output))}"

    def _opened(self, item: OutputItem) -> Event:
        self.response.output.append(item)
        return self._event("response.output_item.added", output_index=self._place, item=item.model_dump())

    def _done(self, item: OutputItem, status: ItemStatus) -> Event:
        item.status = status
        return self._event("response.output_item.done", output_index=self._place, item=item.model_dump())

    def _of_part(self, kind: str, **fields: Any) -> Event:
        assert self._open is not None  # noqa: S101
        return self._event(kind, item_id=self._open.id, output_index=self._place, content_index=0, **fields)

    def _of_response(self, kind: str) -> Event:
        return self._event(kind, response=self.response.model_dump())

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event
