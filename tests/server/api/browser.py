"""Chromium on the pages of a server: Debian's, or whatever is installed under its names."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MOST_SCREENSHOT_BYTES = 200_000
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

expect.set_options(timeout=120_000)


@contextmanager
def quiet_network() -> Iterator[bool]:
    """A loopback of this thread's and of what it starts meanwhile, or False where that needs more rights:
    Chromium breaks off what it loads (ERR_NETWORK_CHANGED) when the machine's interfaces change, as they do
    at every start of a pod of the cluster's tests."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if libc.unshare(CLONE_NEWNET):
            yield False
            return
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
            yield True
        finally:
            if libc.setns(before.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the machine's network is not to be had again")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; skips where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium: apt-get install chromium")
    with quiet_network(), sync_playwright() as playwright:
        browser = launch(playwright, program)
        yield browser
        browser.close()


def launch(playwright: Playwright, program: str) -> Browser:
    return playwright.chromium.launch(
        executable_path=program, chromium_sandbox=os.geteuid() != 0, args=["--disable-dev-shm-usage"]
    )


@contextmanager
def opened(browser: Browser, url: str, *, quiet: Sequence[str] = (), **options: Any) -> Iterator[Page]:
    """A page of its own at ``url``, whose console must stay free of errors and of what its policy forbids,
    but for lines with a word of ``quiet``."""
    context = browser.new_context(**({"viewport": WIDE, "color_scheme": "light"} | options))
    context.set_default_timeout(120_000)
    page, told = context.new_page(), list[str]()

    def note(text: str) -> None:
        if not any(word in text for word in quiet):
            told.append(text)

    page.on("console", lambda line: note(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: note(str(error)))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert not told, told


def check_accessible(page: Page) -> None:
    """Axe finds nothing at all."""
    found = Axe().run(page).response["violations"]
    told = [(rule["id"], [node["failureSummary"] for node in rule["nodes"]]) for rule in found]
    assert not told, told


def shoot(page: Page, name: str, folder: Path) -> None:
    """A screenshot into ``SCREENSHOTS``, if that names a folder (docs/images), else into ``folder``."""
    kept = os.environ.get("SCREENSHOTS")
    path = Path(kept or folder) / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size > 5_000
    assert not kept or path.stat().st_size < MOST_SCREENSHOT_BYTES
