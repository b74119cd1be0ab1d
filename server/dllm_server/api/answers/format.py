"""How an answer is written, whole or as server-sent events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.requests import GenerationRequest

Asked = TypeVar("Asked", bound=GenerationRequest)


class AnswerFormat(ABC, Generic[Asked]):
    """Writes the answer to ``asked``."""

    id_prefix: ClassVar[str]

    def __init__(self, header: AnswerHeader, asked: Asked) -> None:
        self.header = header
        self.asked = asked

    @abstractmethod
    def whole(self, results: Sequence[ChoiceResult]) -> BaseModel:
        """The body of an answer that is not streamed."""

    def opening(self, results: Sequence[ChoiceResult]) -> list[bytes]:
        """What a stream begins with."""
        return []

    @abstractmethod
    def frames(self, results: Sequence[ChoiceResult], event: ChoiceDelta | ChoiceEnd) -> list[bytes]:
        """What a stream says of an event, which is added to its choice's result."""

    @abstractmethod
    def closing(self, results: Sequence[ChoiceResult]) -> list[bytes]:
        """What a stream ends with, once every choice has."""

    @abstractmethod
    def failure(self, error: ApiError) -> bytes:
        """What a stream ends with if it fails."""
