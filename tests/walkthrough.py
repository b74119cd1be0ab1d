"""Walks through a page as its reader does: runs its commands in a shell and its Python, one after another,
and compares what they print with what the page shows of it.

A fence of ``text`` shows what the block before it prints; ``...`` there stands for anything. What serves is
left running while the page goes on "in another terminal", until the next that serves takes its place.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

ROOT = Path(__file__).resolve().parents[1]
SERVES = re.compile(r"^(make serve|\S*dllm serve|kubectl port-forward)\b")
START_SECONDS = 240.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.2
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fence of a page, by the language that it names."""

    language: str
    text: str


def blocks(page: str, section: str) -> list[Block]:
    """Those under the heading ``section``, up to the next of its kind."""
    found = re.search(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {section}"
    return [Block(*fence) for fence in _FENCE.findall(found[1])]


def commands(block: str) -> Iterator[str]:
    """Those of a bash block, without comments; a line ends one unless it is quoted or continued."""
    held = ""
    for line in block.replace("\\\n", " ").splitlines():
        held = f"{held}\n{line}".strip()
        if held.count("'") % 2 == 0:
            command = re.sub(r"(^|\s)#\s.*$", "", held)
            if command.strip():
                yield re.sub(r" +", " ", command).strip()
            held = ""
    assert held == "", f"a quote is open: {held}"


def is_shown(shown: str, printed: str) -> bool:
    """Whether ``printed`` is what a page shows; spaces at the ends of lines count for nothing."""

    def lines(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    pattern = ".*".join(re.escape(part) for part in lines(shown).split("..."))
    return re.fullmatch(pattern, lines(printed), re.DOTALL) is not None


def copy_checkout(files: list[Path], to: Path) -> None:
    """Of ``files``, below this checkout; those that are deleted but still tracked are left out."""
    for file in files:
        if file.is_file():
            target = to / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Walk:
    """In ``folder``, with ``environment`` over the process's own. ``replaced`` maps words of pages to what
    stands for them here; ``url`` is where what serves can be asked. A command is run once, whatever pages say
    it."""

    def __init__(
        self,
        folder: Path,
        url: str,
        environment: Mapping[str, str],
        replaced: Mapping[str, str],
        *,
        command_seconds: float = 300.0,
    ) -> None:
        self.folder = folder
        self.url = url
        self.environment = os.environ | dict(environment)
        self.printed: dict[str, str] = {}
        """What each command of a page has printed on stdout; those that serve, nothing."""
        self._replaced = replaced
        self._command_seconds = command_seconds
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, blocks: list[Block]) -> None:
        """In their order. The first that shows something else than what comes, or fails, ends it."""
        printed = ""
        for block in blocks:
            match block.language:
                case "bash":
                    printed = "".join([self._command(command) for command in commands(block.text)])
                case "python":
                    printed = self._finish(["python", "-c", self._here(block.text)], block.text)
                case "text":
                    assert is_shown(self._here(block.text), printed), f"not {block.text!r} but {printed!r}"
                case _:
                    raise AssertionError(f"nobody runs {block.language}")

    @property
    def serves(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def stop(self) -> None:
        """Ctrl-C for what serves; it must end."""
        server, self._server = self._server, None
        if server is not None:
            try:
                signal_group(server, signal.SIGINT)
                server.wait(STOP_SECONDS)
            finally:
                end(server)

    def _command(self, command: str) -> str:
        here = self._here(command)
        if command in self.printed and (self.serves or not SERVES.match(command)):
            pass
        elif SERVES.match(command):
            self.stop()
            self._serve(here)
            self.printed[command] = ""
        else:
            self.printed[command] = self._finish(["bash", "-euo", "pipefail", "-c", here], here)
        return self.printed[command]

    def _here(self, text: str) -> str:
        for words, other in self._replaced.items():
            text = text.replace(words, other)
        return text

    def _finish(self, command: list[str], name: str) -> str:
        process = self._start(command, subprocess.PIPE, subprocess.PIPE)
        try:
            output, errors = process.communicate(timeout=self._command_seconds)
        finally:
            end(process)
        assert process.returncode == 0, f"{name}\nended with {process.returncode}\n{output}{errors}"
        return output

    def _serve(self, command: str) -> None:
        """Start it, and wait until it is ready."""
        with tempfile.TemporaryFile("w+") as log:
            self._server = self._start(["bash", "-c", command], log, log)
            deadline = time.monotonic() + START_SECONDS
            while not (self.serves and self._is_ready()):
                time.sleep(POLL_SECONDS)
                if not self.serves or time.monotonic() > deadline:
                    log.seek(0)
                    code = self._server.poll()
                    raise AssertionError(f"{command}\nis not ready, ended with {code}\n{log.read()}")

    def _start(
        self, command: list[str], output: int | IO[str], errors: int | IO[str]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            text=True,
            start_new_session=True,
        )

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


def signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """The process and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def end(process: subprocess.Popen[str]) -> None:
    signal_group(process, signal.SIGKILL)
    process.wait()
