"""Runs cases and prints what came of each, as one line of JSON: ``{case: {"answer": ...}}``, or ``"error"``
with the names of the exception's classes and what it says. For every driver in this folder.

Only the standard library: a driver runs among the clients, without the packages of this repository.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def tell(cases: Mapping[str, Callable[[], Any]]) -> None:
    print(json.dumps({name: _outcome(case) for name, case in cases.items()}))


def told_error(error: BaseException) -> dict[str, Any]:
    body = getattr(error, "body", None)
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "text": str(error),
        "status": getattr(error, "status_code", None),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
        "body": body if isinstance(body, dict) else None,
        "headers": dict(getattr(getattr(error, "response", None), "headers", None) or {}),
    }


def _outcome(case: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"answer": case()}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return {"error": told_error(error)}
