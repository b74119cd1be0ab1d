"""The pages on scripted servers: keys, what a model cannot do, failures; and their files."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import chromium, opened, quiet_network
from dllm_server.api.routes.pages import FILES, POLICY
from dllm_server.engine.requests.decoding import diffusion_defaults
from dllm_server.engine.requests.messages import BlockCausalInfo, CanvasUpdate, FailureReason, Generate
from dllm_server.models.tokenizer import load_tokenizer
from dllm_server.settings import EngineSettings, Strategy
from playwright.sync_api import Browser, Page, Route, expect
from scripted_engine import FIXTURE, Step, Wait, failed
from scripted_server import ScriptedServer, eventually

MOST_BYTES = 256 * 1024  # of a wheel that may grow by a MiB

RECORDING = {
    "length": 4,
    "blockLength": 2,
    "ended": "stop",
    "tokens": 3,
    "threshold": 0.9,
    "forwards": [
        {
            "at": 5,
            "start": 0,
            "phase": "refresh",
            "ids": [7, -1],
            "texts": ["a", None],
            "confidence": [0.9, 0.2],
        },
        {"at": 9, "start": 0, "phase": "reuse", "ids": [8, 9], "texts": ["b", "c"], "confidence": [0.8, 0.6]},
        {
            "at": 12,
            "start": 2,
            "phase": "refresh",
            "ids": [5, 1],
            "texts": ["\n", ""],
            "confidence": [0.7, 1],
        },
    ],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def test_pages_are_tried_on_a_network_that_others_do_not_change() -> None:
    names = interfaces()
    with quiet_network() as is_own:
        if not is_own:
            pytest.skip("a network of its own for the browser needs CAP_SYS_ADMIN")
        assert interfaces() == {"lo"}
        with ScriptedServer() as server:
            assert server.http.get("/").status_code == 200
    assert interfaces() == names


def interfaces() -> set[str]:
    """Of this thread's network."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return {line.split(":")[0].strip() for line in lines}


def masked_once(request: Generate) -> list[Step]:
    """A canvas with one token, and then nothing for ever."""
    told = [0.75, *[0.25] * (request.max_tokens - 1)] if request.wants_confidence else []
    shown = [7, *[-1] * (request.max_tokens - 1)]
    return [CanvasUpdate(request.request_id, 0, shown, 1, "refresh", told), Wait.FOREVER]


def fails(request: Generate) -> list[Step]:
    return [*masked_once(request)[:1], failed(request, FailureReason.OUT_OF_MEMORY)]


def send(page: Page, prompt: str = "t1 t2") -> None:
    page.locator("#prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()


def test_files_are_small_and_everything_is_ours() -> None:
    files = [path for path in FILES.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        text = path.read_text()
        assert "//cdn" not in text
        assert text.count("http://") == text.count("http://www.w3.org/2000/svg"), path
        assert "https://" not in text, path


def test_the_types_of_the_modules_fit() -> None:
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("no tsc: apt-get install node-typescript")
    options = [
        "--checkJs",
        "--allowJs",
        "--noEmit",
        "--strict",
        "--target",
        "es2022",
        "--lib",
        "esnext,dom,dom.iterable",
    ]
    modules = [str(path) for path in sorted((FILES / "assets").glob("*.js"))]
    resolution = ["--module", "es2022", "--moduleResolution", "node"]
    found = subprocess.run(
        [compiler, *options, *resolution, *modules], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


def test_pages_and_their_files_have_a_strict_policy() -> None:
    with ScriptedServer() as server:
        for path in ("/", "/engine", "/pages/playground.js", "/pages/theme.css"):
            answer = server.http.get(path)
            assert answer.status_code == 200
            assert answer.headers["Content-Security-Policy"] == POLICY
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert server.http.head(path).status_code == 200
        etag = server.http.get("/pages/theme.css").headers["ETag"]
        assert server.http.get("/pages/theme.css", headers={"If-None-Match": etag}).status_code == 304
        for path in ("/pages/", "/pages/../playground.html", "/pages/%2e%2e/engine.html", "/pages/none.js"):
            assert server.http.get(path).status_code == 404
    assert "unsafe" not in POLICY


def test_a_setting_turns_the_pages_off(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k\n")
    with ScriptedServer(pages=False) as server:
        assert [server.http.get(path).status_code for path in ("/", "/engine", "/pages/dom.js")] == [404] * 3
        assert server.http.get("/snapshot").status_code == 200
    with ScriptedServer(pages=False, api_keys_file=keys) as server:
        assert server.http.get("/pages/dom.js").status_code == 401


def test_a_page_asks_for_the_key_and_keeps_it_to_itself(browser: Browser, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("s3cret\n")
    with ScriptedServer(api_keys_file=keys) as server:
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        with opened(browser, server.url, quiet=("401",)) as page:
            page.get_by_label("Key", exact=True).fill("wrong")
            page.get_by_role("button", name="Use key").click()
            expect(page.locator("#key-dialog")).to_be_visible()
            page.get_by_label("Key", exact=True).fill("s3cret")
            page.keyboard.press("Enter")
            expect(page.locator("#model")).to_have_text("tiny")
            send(page)
            expect(page.locator(".answer-text")).not_to_be_empty()
            page.get_by_role("button", name="Copy link").click()
            assert "s3cret" not in page.evaluate(
                "JSON.stringify(localStorage) + location.href + document.body.innerHTML"
            )
            expect(page.get_by_role("button", name="Copy as curl")).to_be_visible()
            page.goto(f"{server.url}/engine")
            expect(page.locator(".memory .names")).to_contain_text("weights")


@pytest.mark.parametrize(
    "blocks",
    [
        BlockCausalInfo(4, Strategy.THRESHOLD, 0.9, None, None, None),
        BlockCausalInfo(32, Strategy.JOINT_THRESHOLD, 0.7, 0.5, 16, None),
    ],
)
def test_what_the_model_cannot_do_is_disabled_and_says_why(browser: Browser, blocks: BlockCausalInfo) -> None:
    diffusion = diffusion_defaults(EngineSettings(), blocks)
    with (
        ScriptedServer(model={"blocks": blocks}, diffusion=diffusion) as server,
        opened(browser, server.url) as page,
    ):
        expect(page.get_by_role("button", name="Send")).to_be_enabled()
        strategies = page.locator("#A-strategy option").all_inner_texts()
        assert ("joint threshold" in strategies) == (blocks.sub_block_length is None)
        assert page.locator("#A-strategy").input_value() == blocks.strategy
        expect(page.locator("#A-block")).to_be_disabled()
        expect(page.locator("#A-block")).to_have_value(str(blocks.block_length))
        expect(page.locator("#A-block-why")).to_have_text(
            f"this model's blocks are {blocks.block_length} tokens long"
        )
        expect(page.locator("#A-retention")).to_be_disabled()
        send(page)
        expect(page.locator(".answer-text")).not_to_be_empty()
        assert page.locator(".answer h2").inner_text() == (
            f"{blocks.strategy.replace('_', ' ')} {blocks.value} · block {blocks.block_length}"
        )


def test_a_model_without_a_chat_template_is_asked_for_completions(browser: Browser, tmp_path: Path) -> None:
    shutil.copy(FIXTURE / "tokenizer.json", tmp_path)
    with ScriptedServer(tokenizer=load_tokenizer(tmp_path)) as server, opened(browser, server.url) as page:
        expect(page.get_by_label("System message")).to_be_hidden()
        with page.expect_request("**/v1/completions") as sent:
            send(page, "t1 t2")
        body = json.loads(sent.value.post_data or "{}")
        assert body["prompt"] == "t1 t2"
        assert body["stream_options"]["include_canvas_confidence"] is True
        assert body["separate_reasoning"] is False  # the text shows what the canvases show
        expect(page.locator(".answer-text")).to_contain_text("t0 t1")


@pytest.mark.parametrize(("path", "asks"), [("/", "v1/models"), ("/engine", "snapshot")])
def test_a_page_asks_again_until_the_server_answers(browser: Browser, path: str, asks: str) -> None:
    """It is not reached, then starts, then does not answer at all."""
    unready = {"status": 503, "body": '{"error": {"message": "scripted start"}}'}
    ways: list[Callable[[Route], object]] = [
        lambda route: route.abort(),
        lambda route: route.fulfill(**unready),
        lambda route: None,
    ]
    errors = ["net::ERR_FAILED", "status of 503"]

    with ScriptedServer() as server, opened(browser, "about:blank", quiet=errors) as page:
        page.route(f"**/{asks}", lambda route: ways.pop(0)(route) if ways else route.continue_())
        page.goto(f"{server.url}{path}")

        expect(page.locator("#notice")).to_contain_text("Failed to fetch")
        expect(page.locator("#notice")).to_contain_text("scripted start")
        expect(page.locator("#notice")).to_contain_text("no answer within")
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#model")).to_contain_text("tiny")
        assert ways == []


def test_cancelling_frees_the_request_in_the_engine(browser: Browser) -> None:
    with ScriptedServer(masked_once) as server, opened(browser, server.url) as page:
        send(page)
        expect(page.locator(".cell.fresh")).to_have_count(1)
        assert (
            page.locator(".cell.masked").first.evaluate("cell => cell.style.getPropertyValue('--sure')")
            == "0.25"
        )
        page.get_by_role("button", name="Cancel").click()

        eventually(lambda: not server.engine.open, "the cancelled request is noticed")
        expect(page.locator(".status.cancelled")).to_be_visible()


def test_leaving_the_page_frees_it_too(browser: Browser) -> None:
    with ScriptedServer(masked_once) as server:
        with opened(browser, server.url) as page:
            send(page)
            expect(page.locator(".cell.fresh")).to_have_count(1)
        eventually(lambda: not server.engine.open, "the page that was closed is noticed")


def test_a_failure_is_shown_in_the_servers_words(browser: Browser) -> None:
    with ScriptedServer(fails) as server, opened(browser, server.url) as page:
        send(page)

        expect(page.locator(".status.failed")).to_be_visible()
        expect(page.locator(".answer-text.problem")).to_contain_text("scripted out_of_memory")
        expect(page.get_by_role("button", name="Send")).to_be_enabled()


def in_page(page: Page, module: str, call: str, *arguments: Any) -> Any:
    """What a function of one of the pages' modules gives."""
    script = f"async given => (await import('/pages/{module}')).{call}(...given)"
    return page.evaluate(script, [*arguments])


def test_edits_flash_and_what_is_behind_the_end_is_left_out(browser: Browser) -> None:
    with ScriptedServer() as server, opened(browser, server.url) as page:
        frames = [in_page(page, "recording.js", "frameAt", RECORDING, shown) for shown in range(4)]
        course = in_page(page, "recording.js", "courseOf", RECORDING)

    states = [[cell["state"] for cell in frame["cells"]] for frame in frames]
    assert states == [
        ["waiting"] * 4,
        ["fresh", "masked", "waiting", "waiting"],
        ["edited", "fresh", "waiting", "waiting"],
        ["committed", "committed", "fresh", "after"],
    ]
    assert [frame["committed"] for frame in frames] == [0, 1, 2, 4]
    assert [block["phases"] for block in frames[3]["blocks"]] == [["refresh", "reuse"], ["refresh"]]
    assert [(point["committed"], point["edited"]) for point in course] == [(1, 0), (1, 1), (2, 0)]
    spread = course[0]["spread"]
    assert (spread["surest"], spread["least"], spread["masked"]) == (0.9, 0.2, 2)
    assert spread["mean"] == pytest.approx(0.55)
    assert course[1]["spread"]["surest"] == 0.6  # the edited position was masked no more


def test_a_fragment_is_read_as_it_was_written_and_nonsense_is_none(browser: Browser) -> None:
    state = {"prompt": "ü\N{BRAIN} '\"<&", "a": {"value": 0.5}}
    with ScriptedServer() as server, opened(browser, server.url) as page:
        fragment = in_page(page, "share.js", "toFragment", state)
        assert in_page(page, "share.js", "fromFragment", fragment) == state
        for nonsense in ("", "#", "#s=", "#s=!!", "#s=bnVsbA", "#other"):
            assert in_page(page, "share.js", "fromFragment", nonsense) is None
