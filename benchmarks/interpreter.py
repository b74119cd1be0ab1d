"""Triton's interpreter, so that kernels run where no GPU is."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

SWITCH = "TRITON_INTERPRET"


def interpret_kernels() -> str | None:
    """Make kernels that are imported from now on run in the interpreter; a sentence says why they cannot."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    if "triton" in sys.modules and os.environ.get(SWITCH) != "1":
        return f"triton was imported without its interpreter: set {SWITCH}=1 before starting"
    os.environ[SWITCH] = "1"
    from triton.runtime import interpreter

    _accept_scalars_of_one_dimension(interpreter)
    return None


def _accept_scalars_of_one_dimension(interpreter: Any) -> None:
    """triton 3.6 turns a scalar, held as an array of one element, into an int in a way numpy 2.4 refuses."""
    patch: Callable[[Any, Any], None] = interpreter._patch_lang_tensor

    def patch_index_too(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda scalar: scalar.handle.data.item())

    interpreter._patch_lang_tensor = patch_index_too
