"""One OpenAI-compatible endpoint, and what is sent to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from dllm_server.load.question import Question


class Api(StrEnum):
    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self is Api.CHAT else "/v1/completions"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``extra`` goes over each body's fields; a null takes one out."""

    url: str
    model: str
    api: Api = Api.CHAT
    key: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.key)

    def body(self, question: Question) -> dict[str, Any]:
        """A streamed request with usage; ``ValueError`` for messages where a text is needed."""
        asked: dict[str, Any]
        if self.api is Api.CHAT:
            messages = list(question.messages) or [{"role": "user", "content": question.text}]
            asked = {"messages": messages}
        elif question.messages:
            raise ValueError("the file of prompts has messages: --api completions takes texts")
        else:
            asked = {"prompt": question.text}
        asked |= {
            "model": self.model,
            "max_tokens": question.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return {name: value for name, value in (asked | dict(self.extra)).items() if value is not None}


def bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def base_url(url: str) -> str:
    """``localhost:8000/v1/`` -> ``http://localhost:8000``; ``ValueError`` for what is no address."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url}: not the address of an HTTP server, such as http://localhost:8000")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an address has a host, a port and a path; keys are an option of their own")
    path = parts.path.rstrip("/")
    for ending in (Api.CHAT.path, Api.COMPLETIONS.path, "/v1"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{parts.netloc}{path}"


def choose_model(listing: Any, wanted: str | None, url: str) -> str:
    """The wanted model, or the only one of ``/v1/models``; ``ValueError`` lists those there are."""
    cards = listing.get("data") if isinstance(listing, Mapping) else None
    names = [str(card["id"]) for card in cards or () if isinstance(card, Mapping) and "id" in card]
    if wanted is not None and wanted in names:
        return wanted
    if wanted is None and len(names) == 1:
        return names[0]
    if not names:
        raise ValueError(f"{url}/v1/models lists no model")
    problem = "serves several models" if wanted is None else f"does not serve {wanted}"
    raise ValueError(f"{url} {problem}; it lists {', '.join(names)}")
