"""Makes a Python program stand still at a stage, ``import:MODULE`` or ``call:FILE:FUNCTION``.

On ``PYTHONPATH`` it is imported by every interpreter. ``STAND_STILL_AT`` names the stage, ``STANDS_STILL``
the file that gets the id of the process that stands still.
"""

import os
import sys
import time
from pathlib import Path

kind, _, where = os.environ["STAND_STILL_AT"].partition(":")
mark = Path(os.environ["STANDS_STILL"])


def stand_still() -> None:
    half = mark.with_suffix(".half")
    half.write_text(str(os.getpid()))
    half.rename(mark)
    while True:
        time.sleep(60)


def on_event(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import" and arguments[0] == where:
        stand_still()


def on_call(frame: object, event: str, argument: object) -> None:
    code = frame.f_code  # type: ignore[attr-defined]
    if event == "call" and code.co_name == function and code.co_filename.endswith(file):
        sys.setprofile(None)
        stand_still()


if kind == "import":
    sys.addaudithook(on_event)
elif kind == "call":
    import threading

    file, _, function = where.partition(":")
    sys.setprofile(on_call)
    threading.setprofile(on_call)
