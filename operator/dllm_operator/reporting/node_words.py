"""What the kubelet tells of containers that it cannot start, in words of our own.

Its texts pass on those of the container runtime and of registries, which may hold an environment variable, a
credential or whatever an image wants them to: only those known here are told, and of them only names. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?"
_EVENTS = "the events of the pod say why"

_Sentence = Callable[[re.Match[str]], str]


def _says(text: str) -> _Sentence:
    return lambda _: text


_KNOWN: tuple[tuple[re.Pattern[str], _Sentence], ...] = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (
            rf'^(?P<kind>secret|configmap) "(?P<name>{_NAME})" not found$',
            lambda found: f'{found["kind"]} "{found["name"]}" not found',
        ),
        (
            rf"^couldn't find key (?P<key>{_NAME}) in (?P<kind>Secret|ConfigMap) (?P<name>{_NAME}/{_NAME})$",
            lambda found: f"couldn't find key {found['key']} in {found['kind']} {found['name']}",
        ),
        (
            r"^container has runAsNonRoot and image ",
            _says("the image runs as root, or its user is no number: give it a numeric USER other than 0"),
        ),
        (
            r"executable file not found|no such file or directory",
            _says("the image has no such program: dllm"),
        ),
        (r"permission denied", _says("the image's program may not be executed")),
        (r"(?i)no match for platform|no matching manifest", _says("the image is not for this platform")),
        (
            r"(?i)unauthorized|authorization failed|authentication required|denied|forbidden|\b40[13]\b",
            _says("the registry refuses access: check podTemplate.imagePullSecrets and the name"),
        ),
        (r"(?i)not found|manifest unknown|name unknown|\b404\b", _says("the registry has no such image")),
        (
            r"(?i)no such host|i/o timeout|connection refused|deadline exceeded|no route|unreachable",
            _says("the registry cannot be reached"),
        ),
        (r"(?i)x509|certificate|\btls\b", _says("the registry's certificate is not trusted")),
        (
            r"(?i)too many requests|\b429\b|toomanyrequests",
            _says("the registry refuses more requests"),
        ),
        (r"(?i)couldn't parse image|invalid reference format", _says("the name is not that of an image")),
        (
            r"(?i)not present with pull policy of never",
            _says("the node lacks it, and it is never pulled"),
        ),
        (r"(?i)no space left", _says("the node's disk is full")),
    )
)


def recognised(reason: str, message: str, image: str = "") -> str:
    """``ErrImagePull: image REFERENCE: ...`` and the like; ``reason`` and ``image`` are the pod's own."""
    told = (sentence(found) for known, sentence in _KNOWN if (found := known.search(message)))
    what = f"image {image}: " if image else ""
    return f"{reason}: {what}{next(told, _EVENTS)}"
