"""The playground and the engine page in Chromium, on a real server of the model in the package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from browser import PHONE, check_accessible, chromium, opened, shoot
from playwright.sync_api import Browser, Locator, Page, expect

from tests.server.api.real_server import RealServer

pytestmark = pytest.mark.sampled(0.4, of="what the pages do in a browser")

SORT = "Sort seven words"
SETTLE_MILLISECONDS = 700  # of animations


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(browser: Browser) -> Iterator[RealServer]:
    flags = ["--max-num-seqs", "16", "--gpu-memory-limit", "4GiB"]
    with RealServer(*flags, model="embedded") as started:
        yield started


def choose(page: Page, *, strategy: str, value: float, side: str = "A") -> None:
    page.locator(f"#{side}-strategy").select_option(strategy)
    page.locator(f"#{side}-value").fill(str(value))


def ask(page: Page, example: str = SORT) -> None:
    """Send an example prompt."""
    page.get_by_role("button", name=example).click()
    page.locator("#prompt").press("Enter")


def await_end(page: Page) -> None:
    """All answers have ended and are shown to their last forward pass."""
    expect(page.locator(".actions button").first).to_be_visible()
    expect(page.locator(".status.running")).to_have_count(0)
    for button in page.get_by_role("button", name="Last").all():
        button.click()


def counted(answer: Locator | Page, name: str) -> float:
    for item in answer.locator(".counts li").all():
        value, said = item.locator("b").inner_text(), item.locator("span").inner_text()
        if said == name:
            return float(value.split()[0])
    raise AssertionError(f"no count of {name}")


def forwards_of(page: Page, index: int = 0) -> int:
    return int(counted(page.locator(".answer").nth(index), "forwards"))


def shown_text(answer: Locator) -> str:
    return "".join(answer.locator(".cell:not(.after):not(.special)").all_text_contents())


def test_masks_become_text_while_the_answer_is_made(
    browser: Browser, server: RealServer, tmp_path: Path
) -> None:
    with opened(browser, server.url) as page:
        choose(page, strategy="quota", value=1)
        ask(page)
        answer = page.locator(".answer")
        expect(answer.locator(".cell.masked").first).to_be_visible()
        expect(answer.locator(".cell.waiting").first).to_be_visible()
        expect(answer.locator(".cell.committed").first).to_be_visible()
        expect(answer.locator(".block.is-current")).to_have_count(1)
        await_end(page)

        text = answer.locator(".answer-text").inner_text()
        assert text == "block, canvas, commit, mask, refresh, reuse, token"
        assert shown_text(answer) == text
        assert answer.locator(".cell.masked").count() == 0
        assert (forwards_of(page), counted(answer, "refreshes")) == (64, 2)
        assert counted(answer, "tokens") == len(answer.locator(".cell:not(.after)").all())
        expect(answer.locator(".block .count")).to_have_text(["32 forwards", "32 forwards"])
        page.get_by_label("Forward pass shown").fill("17")
        page.wait_for_timeout(SETTLE_MILLISECONDS)
        shoot(page, "playground", tmp_path)


def test_a_finished_answer_is_replayed_forward_by_forward(browser: Browser, server: RealServer) -> None:
    with opened(browser, server.url) as page:
        choose(page, strategy="quota", value=2)
        ask(page)
        await_end(page)
        answer = page.locator(".answer")
        total = forwards_of(page)
        slider = page.get_by_label("Forward pass shown")

        page.get_by_role("button", name="First").click()
        expect(answer.locator(".cell.waiting")).to_have_count(64)
        for _ in range(3):
            page.get_by_role("button", name="On one forward pass").click()
        expect(answer.locator(".cell.fresh")).to_have_count(2)
        expect(answer.locator(".cell.committed")).to_have_count(4)
        expect(answer.locator(".legend .committed b")).to_have_text("2")
        slider.press("ArrowRight")
        expect(answer.locator(".cell.committed")).to_have_count(6)
        assert slider.get_attribute("aria-valuetext") == f"forward 4 of {total}, reuse"
        page.get_by_label("Speed").select_option("60")
        page.get_by_role("button", name="Play", exact=True).click()
        expect(page.locator(".where")).to_contain_text(f"{total} / {total}")
        expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
        page.locator(".chart").click(position={"x": 40, "y": 40})
        assert int(slider.input_value()) < 6


def test_a_request_can_be_cancelled_and_its_beginning_replayed(browser: Browser, server: RealServer) -> None:
    with opened(browser, server.url) as page:
        page.get_by_label("Canvas (tokens)").fill("1024")
        choose(page, strategy="quota", value=1)
        page.locator("#A-block").fill("256")
        page.locator("#prompt").fill("Hello! Who are you?")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".cell.committed").first).to_be_visible()
        page.locator("#prompt").press("Escape")

        expect(page.locator(".status.cancelled")).to_be_visible()
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        page.get_by_role("button", name="First").click()
        expect(page.locator(".cell.waiting")).to_have_count(1024)


def test_a_lower_threshold_takes_fewer_forward_passes(browser: Browser, server: RealServer) -> None:
    with opened(browser, server.url) as page:
        taken = []
        for number, threshold in enumerate((0.999, 0.3)):
            choose(page, strategy="threshold", value=threshold)
            ask(page)
            expect(page.locator(".actions")).to_have_count(number + 1)
            await_end(page)
            taken.append(forwards_of(page, number))
            expect(page.locator(".legend .gate b").nth(number)).to_have_text(f"{threshold:.2f}")

        assert taken[1] < taken[0]
        runs = page.locator(".run-counts").all_inner_texts()
        assert [int(text.split()[0]) for text in runs] == taken[::-1]


def test_two_settings_are_compared_on_one_prompt(
    browser: Browser, server: RealServer, tmp_path: Path
) -> None:
    size = {"width": 1340, "height": 1080}
    with opened(browser, server.url, viewport=size, color_scheme="dark") as page:
        page.get_by_label("Compare two settings").check()
        ask(page)
        await_end(page)
        page.locator(".asked").scroll_into_view_if_needed()
        page.wait_for_timeout(SETTLE_MILLISECONDS)

        a, b = forwards_of(page, 0), forwards_of(page, 1)
        assert (a < b, b) == (True, 64)  # a threshold of 0.9, one token a forward pass
        expect(page.locator(".comparison h2")).to_have_text(
            re.compile("^A takes [0-9]+\N{MULTIPLICATION SIGN} fewer forward passes[.]$")
        )
        texts = page.locator(".answer .answer-text").all_inner_texts()
        same = "Both give the same answer." if texts[0] == texts[1] else "The answers differ."
        expect(page.locator(".comparison > p")).to_have_text(same)
        check_accessible(page)
        shoot(page, "playground-compare", tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_either_colours(browser: Browser, server: RealServer, scheme: str) -> None:
    with opened(browser, server.url, color_scheme=scheme) as page:
        check_accessible(page)
        choose(page, strategy="threshold", value=0.5)
        ask(page)
        await_end(page)
        page.wait_for_timeout(SETTLE_MILLISECONDS)
        check_accessible(page)
        page.get_by_role("button", name="Back one forward pass").click()
        page.wait_for_timeout(SETTLE_MILLISECONDS)
        check_accessible(page)


def test_it_fits_a_phone(browser: Browser, server: RealServer, tmp_path: Path) -> None:
    with opened(browser, server.url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        expect(page.locator("#controls")).to_be_hidden()  # until its summary is pressed
        check_accessible(page)
        ask(page)
        await_end(page)
        page.locator(".turn").evaluate("turn => turn.scrollIntoView()")
        page.wait_for_timeout(SETTLE_MILLISECONDS)

        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        check_accessible(page)
        shoot(page, "playground-phone", tmp_path)


def test_a_keyboard_is_enough(browser: Browser, server: RealServer) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"the key Tab does not reach {selector}")

    with opened(browser, server.url) as page:
        expect(page.get_by_role("button", name="Send")).to_be_enabled()
        tab_to(".skip")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "prompt"
        tab_to("#A-strategy")
        page.keyboard.type("quota")
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("document.activeElement.id") == "compare"
        page.locator("#prompt").focus()
        page.keyboard.type("Hello! Who are you?")
        page.keyboard.press("Enter")
        expect(page.locator(".answer h2")).to_contain_text("quota 1")
        expect(page.locator(".actions button").first).to_be_visible()
        page.locator("header .brand").focus()
        tab_to("button[aria-label=Play], button[aria-label=Pause]")
        tab_to("input[aria-label='Forward pass shown']")
        page.keyboard.press("Home")
        expect(page.locator(".where")).to_contain_text("0 / ")
        page.keyboard.press("ArrowRight")
        expect(page.locator(".where")).to_contain_text("1 / ")
        tab_to(".actions button")


def test_reduced_motion_moves_nothing(browser: Browser, server: RealServer) -> None:
    with opened(browser, server.url, reduced_motion="reduce") as page:
        ask(page)
        await_end(page)

        fresh = page.locator(".cell.fresh").first
        assert fresh.evaluate("cell => getComputedStyle(cell).animationName") == "none"
        assert page.get_by_label("Speed").input_value() == "0"


def test_a_replay_is_exported_as_a_file_that_needs_nothing_else(
    browser: Browser, server: RealServer, tmp_path: Path
) -> None:
    with opened(browser, server.url) as page:
        page.get_by_label("Compare two settings").check()
        ask(page)
        await_end(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Export both replays").click()
        saved = tmp_path / download.value.suggested_filename
        download.value.save_as(saved)
        texts = page.locator(".answer-text").all_inner_texts()

    assert not re.findall(r"(?:src|href)=|https?://(?!www\.w3\.org/2000/svg)", saved.read_text())
    asked: list[str] = []
    with opened(browser, "about:blank") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(saved.as_uri())
        assert page.locator(".answer-text").all_inner_texts() == texts
        page.get_by_role("button", name="Last").first.click()
        assert shown_text(page.locator(".card").first) == texts[0]
        page.get_by_label("Forward pass shown").first.fill("1")
        assert page.locator(".card").first.locator(".cell.masked").count() > 0
        check_accessible(page)
    assert asked == [saved.as_uri()]


def test_a_link_carries_the_prompt_and_the_settings(browser: Browser, server: RealServer) -> None:
    prompt = "Is <b>this</b> a link? Ünïcode \N{BRAIN}"
    with opened(browser, server.url) as page:
        choose(page, strategy="factor", value=2.5)
        page.locator("#A-seed").fill("7")
        page.get_by_label("Compare two settings").check()
        page.locator("#prompt").fill(prompt)
        page.get_by_role("button", name="Copy link").click()
        link = page.evaluate("location.href")
    with opened(browser, link) as page:
        expect(page.locator("#prompt")).to_have_value(prompt)
        assert page.locator("#A-strategy").input_value() == "factor"
        assert page.locator("#A-value").input_value() == "2.5"
        assert page.locator("#A-seed").input_value() == "7"
        assert page.locator("#B-strategy").input_value() == "quota"
        page.locator("#prompt").press("Enter")
        await_end(page)
        assert page.locator(".asked p").first.inner_text() == prompt
        assert page.locator(".asked b").count() == 0
    with opened(browser, f"{server.url}/#s=nonsense") as page:
        expect(page.locator("#A-strategy")).to_have_value("threshold")


def test_what_is_copied_runs_and_gives_the_same_answer(browser: Browser, server: RealServer) -> None:
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        choose(page, strategy="quota", value=4)
        page.locator("#prompt").fill('What\'s "spelt" backward?\n$HOME `id`')
        page.get_by_role("button", name="Send").click()
        await_end(page)
        answer = page.locator(".answer-text").inner_text()
        page.get_by_role("button", name="Copy as curl").click()
        expect(page.locator("#toast")).to_have_text("Copied as curl")
        curl = page.evaluate("navigator.clipboard.readText()")
        page.get_by_role("button", name="Copy as Python").click()
        expect(page.locator("#toast")).to_have_text("Copied as Python")
        python = page.evaluate("navigator.clipboard.readText()")

    ran = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(ran.stdout)["choices"][0]["message"]["content"] == answer
    ran = subprocess.run(
        [sys.executable, "-c", python], capture_output=True, text=True, check=True, timeout=300
    )
    assert ran.stdout == f"{answer}\n"


@contextmanager
def busy(server: RealServer, clients: int) -> Iterator[None]:
    """So many clients that ask one after the other."""
    is_over = threading.Event()
    body = {
        "prompt": "Hello! Who are you?",
        "max_tokens": 96,
        "ignore_eos": True,
        "diffusion": {"unmasking": {"strategy": "quota", "value": 2}},
    }

    def ask_on() -> None:
        with httpx.Client(base_url=server.url, timeout=300) as client:
            while not is_over.is_set():
                client.post("/v1/completions", json=body)

    threads = [threading.Thread(target=ask_on) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_the_engine_page_shows_what_the_engine_does(
    browser: Browser, server: RealServer, tmp_path: Path
) -> None:
    with (
        busy(server, 6),
        opened(browser, f"{server.url}/engine", viewport={"width": 1440, "height": 1080}) as page,
    ):
        expect(page.locator(".summary li").first).to_contain_text("6")
        expect(page.locator(".throughput .spark")).to_have_attribute("points", re.compile(r"(\S+ ){5}"))
        expect(page.locator(".steps h2")).to_have_text("The last 64 steps, query tokens")
        page.get_by_role("button", name="Pause").click()
        told = server.http.get("/snapshot").json()

        assert page.locator(".steps rect.column").count() == 128  # two phases
        label = page.locator(".memory .stack").get_attribute("aria-label") or ""
        assert f"weights {told['memory']['by_owner']['weights'] / 2**20:.1f} MiB" in label
        assert page.locator(".requests .names li").count() == len(told["requests"]["by_phase"])
        expect(page.locator(".pages .under")).to_contain_text("of 16 slots")
        expect(page.locator(".latency td").nth(1)).to_contain_text("ms")
        settings = page.locator(".tuning tbody th").all_inner_texts()
        assert settings == list(told["tuning"]["settings"])
        check_accessible(page)
        shoot(page, "engine", tmp_path)
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size(PHONE)
        check_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
