"""Makes a Python program stand still at a stage, ``import:MODULE`` or ``call:FILE:FUNCTION``.

On ``PYTHONPATH`` it is imported by every interpreter. ``STAND_STILL_AT`` names the stage, ``STANDS_STILL``
the file that gets the id of the process that stands still.
"""

import os
import sys
import threading
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
    if event != "import":
        return
    name = str(arguments[0])
    if kind == "import" and name == where:
        stand_still()
    if kind == "call" and name.endswith(module):  # calls are looked at from here on: it makes them slow
        threading.setprofile(on_call)
        sys.setprofile(on_call)


def on_call(frame: object, event: str, argument: object) -> None:
    code = frame.f_code  # type: ignore[attr-defined]
    if event == "call" and code.co_name == function and code.co_filename.endswith(file):
        sys.setprofile(None)
        stand_still()


file, _, function = where.partition(":")
module = file.removesuffix(".py").replace("/", ".")
sys.addaudithook(on_event)
