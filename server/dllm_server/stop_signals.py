"""What SIGTERM and SIGINT do to a program before it listens to them itself, and after.

A container's first process never sees a signal that has no handler, and imports take seconds: this comes
before them, so it imports nothing but the standard library. For the server and the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import NoReturn

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_when_told() -> None:
    """Until ``listen`` takes over, a signal ends the process at once, with 0: it holds nothing yet."""
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))


def ignore_stop_signals() -> None:
    """For a process whose parent decides when to stop."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def listen(stop: asyncio.Event) -> None:
    """A signal sets ``stop`` on the running loop."""
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def leave(code: int) -> NoReturn:
    """End the process without waiting for its threads; what must be given back has been."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
