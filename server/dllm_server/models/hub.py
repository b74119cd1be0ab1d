"""A model's files from the hub: data only, never code; every way this fails in one line with its remedy."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dllm_server.cause import Cause
from dllm_server.logs import adopt_logger
from dllm_server.models.files import ModelError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

_NO_TOKEN = frozenset({"none", "null"})  # what an unset value becomes on its way through templates
_DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
)


def download(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The snapshot of a hub id in the hub's cache, fetched where it is not there yet.

    Raises:
        ModelError: what keeps the hub, the network, the token or the disk from giving it.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    adopt_logger("huggingface_hub")
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        token = False if is_token_void() else None  # None: as the hub's own settings say
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns), token=token))
    except Exception as error:  # the hub's client, its HTTP library and the disk raise types of their own
        reason = why(error, model, revision, endpoint=constants.ENDPOINT, cache=constants.HF_HUB_CACHE)
        raise ModelError(
            f"{model}: no such directory, and {reason.text}", reason.cause, **reason.numbers
        ) from error


def is_token_void(environment: Mapping[str, str] = os.environ) -> bool:
    """A token that says there is none; sent to the hub, it would refuse even public models."""
    token = next((environment[name] for name in TOKEN_VARIABLES if environment.get(name)), "")
    return token.strip().lower() in _NO_TOKEN


class Reason(NamedTuple):
    """In words, and as a cause with its numbers."""

    text: str
    cause: Cause
    numbers: Mapping[str, int] = MappingProxyType({})


def why(error: Exception, model: str, revision: str | None, *, endpoint: str, cache: str) -> Reason:
    """What is wrong and what helps, of an error of ``snapshot_download``. Pure."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    match error:
        case HfHubHTTPError():
            return _refusal(error, model, revision, endpoint)
        case HFValidationError():
            return Reason("it is not a hub id (owner/name) either: check the name", Cause.NO_MODEL)
        case LocalEntryNotFoundError():
            holds = "only a part of it" if isinstance(error, IncompleteSnapshotError) else "no copy of it"
            cause = error.__cause__ or error.__context__
            if isinstance(cause, OfflineModeIsEnabled):
                return Reason(
                    f"HF_HUB_OFFLINE is set while the cache {cache} holds {holds}: "
                    "unset it, or fetch the model first",
                    Cause.HUB_OFFLINE,
                )
            if isinstance(cause, HfHubHTTPError):
                return _refusal(cause, model, revision, endpoint)
            return Reason(
                f"the hub at {endpoint} cannot be reached ({_line(cause or error)}) while the cache {cache} "
                f"holds {holds}: check the network, HF_ENDPOINT and proxies, or give a directory",
                Cause.HUB_UNREACHABLE,
            )
        case OSError(errno=number) if number in _DISK_ERRORS:
            return Reason(
                f"the hub's cache {error.filename or cache} cannot be written ({os.strerror(number or 0)}): "
                "point HF_HOME to a directory with room that may be written",
                Cause.HUB_CACHE,
            )
    text = f"its download from {endpoint} failed ({_line(error)}): try again, or give a directory"
    return Reason(text, Cause.HUB_UNREACHABLE)


def _refusal(error: HfHubHTTPError, model: str, revision: str | None, endpoint: str) -> Reason:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    match error:
        case GatedRepoError():
            return Reason(
                f"it is gated: accept its terms at {endpoint}/{model}, and set HF_TOKEN to a token of that "
                "account",
                Cause.HUB_GATED,
            )
        case RevisionNotFoundError():
            text = f"the hub has no revision {revision!r} of it: check --revision"
            return Reason(text, Cause.HUB_REVISION)
        case RepositoryNotFoundError():
            return Reason(
                f"the hub at {endpoint} has no such model, or hides it as private: check the name, or set "
                "HF_TOKEN to a token that may read it",
                Cause.HUB_MODEL,
            )
    match error.response.status_code:
        case 401:
            return Reason("the hub does not know the token in HF_TOKEN: renew or unset it", Cause.HUB_TOKEN)
        case 403:
            text = "the token in HF_TOKEN may not read it: give it the right to read this model"
            return Reason(text, Cause.HUB_FORBIDDEN)
        case 429:
            text = "the hub refuses more requests for now (429): wait, or set HF_TOKEN"
            return Reason(text, Cause.HUB_ANSWER, {"status": 429})
        case status:
            text = f"the hub at {endpoint} answered {status}: try again later, or give a directory"
            return Reason(text, Cause.HUB_ANSWER, {"status": status})


def _line(error: BaseException) -> str:
    """The error's first words, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
