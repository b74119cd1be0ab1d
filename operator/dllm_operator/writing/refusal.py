"""Why the API server refused a child: for what it says, or for what the cluster is like now. Pure."""

from __future__ import annotations

from http import HTTPStatus

from dllm_operator.cluster.kube import KubeError

_NO_DRY_RUN = "does not support dry run"
_DENIED = ("denied the request", "denied request")  # by a webhook, by a ValidatingAdmissionPolicy
_NOT_TYPED = "failed to create typed patch object"  # a field that the kind does not have


def is_about_the_spec(error: KubeError) -> bool:
    """Whether another spec would be taken. Quotas, permissions, conflicts and outages are not about it."""
    if is_without_dry_run(error):
        return False
    if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return True
    text = str(error)
    is_denied = error.status == HTTPStatus.FORBIDDEN and any(words in text for words in _DENIED)
    return is_denied or _NOT_TYPED in text


def is_without_dry_run(error: KubeError) -> bool:
    """A webhook with side effects cannot say what it would do."""
    return error.status == HTTPStatus.BAD_REQUEST and _NO_DRY_RUN in str(error)
