"""The C library's heap: large bodies and their tokens come and go, and what they took must go too."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

_M_MMAP_THRESHOLD = -3  # names of <malloc.h>
_M_ARENA_MAX = -8
_LARGE_BYTES = 128 * 1024
_ARENAS = 2


def tame_heap() -> None:
    """Give large blocks pages of their own, which go back when freed, and bound the arenas of threads.

    Left alone, glibc raises its idea of a large block to the largest one freed (up to 32 MiB), so that later
    bodies lie in heaps that are full of holes when they go. Does nothing on another C library.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back_memory() -> None:
    """Return free pages in the middle of the heaps to the system. Milliseconds; gives up the interpreter's
    lock meanwhile."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
