"""A newcomer's ways, from the text of the pages: on a laptop, on one GPU, the README's. The third, to a
cluster, is tests/cluster/test_quickstart.py."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.fake_hub import fake_hub
from tests.test_structure import tracked_files
from tests.walkthrough import ROOT, Block, Walk, blocks, commands, copy_checkout, free_port

EMBEDDED = ROOT / "server/dllm_server/models/embedded"
README = (ROOT / "README.md").read_text()
QUICKSTART, API, BENCHMARKING = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("quickstart", "api", "benchmarking")
)
GPU_MODEL = "GSAI-ML/LLaDA-8B-Instruct"
QUESTION = {"role": "user", "content": "Who are you?"}

WAY = pytest.mark.sampled(0.5, of="ways")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """A copy of the checkout with the libraries of the environment that runs the tests. Nothing but this
    differs from what the pages say: port, device, shorter loads, and that the hub has a small model under the
    large one's name."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(tracked_files(), folder)
    programs = Path(sys.executable).parent
    if not (programs / "dllm").exists():
        pytest.skip("no dllm beside python: make install-test")
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(programs)
    for stamp in (".server", ".test"):  # later than what they depend on
        (folder / ".venv" / stamp).touch()
    port = free_port()
    with fake_hub({GPU_MODEL: EMBEDDED}) as hub:
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(str(folder / package) for package in ("kernels", "server", "operator")),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hub"),
            "DLLM_PORT": str(port),
            "DLLM_DEVICE": "cpu",
            "DLLM_GPU_MEMORY_LIMIT": "24GiB",
            "DLLM_BENCH_REQUESTS": "2",
            "DLLM_BENCH_MAX_TOKENS": "16",
            "OMP_NUM_THREADS": "1",
        }
        replaced = {
            "localhost:8000": f"localhost:{port}",
            "--port 9000": f"--port {port}",
            "make test": "make --dry-run test",  # which runs this
            "--rounds 4": "--rounds 1",
            "http://old:8000": f"http://localhost:{port}",
            "http://new:8000": f"http://localhost:{port}",
        }
        with Walk(folder, f"http://localhost:{port}", environment, replaced) as walk:
            yield walk


@pytest.fixture
def served(walk: Walk) -> Walk:
    """With the embedded model, whichever of the ways has been walked before."""
    if not walk.serves:
        walk.run([Block("bash", "make serve\n")])
    return walk


@WAY
def test_a_laptop_serves_the_model_in_the_package(walk: Walk) -> None:
    walk.run(blocks(QUICKSTART, "Laptop"))

    assert "Memory" in walk.printed[".venv/bin/dllm top localhost:8000"]
    assert walk.printed['.venv/bin/dllm generate --prompt "Who are you?"'].startswith("I am the embedded")


@WAY
def test_fields_that_the_api_page_shows_are_taken(served: Walk) -> None:
    chat, scoring = (
        json.loads(f"{{{block.text}}}")
        for section in ("Request", "Scoring")
        for block in blocks(API, section)
        if block.language == "json"
    )
    asked = {
        "chat/completions": {"messages": [QUESTION]} | chat,
        "completions": {"prompt": "Who are you?", "echo": True, "logprobs": 1, "max_tokens": 0} | scoring,
    }

    answers = {
        path: httpx.post(f"{served.url}/v1/{path}", json=body, timeout=120) for path, body in asked.items()
    }

    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(asked, 200)


@WAY
def test_canvas_events_are_as_the_api_page_shows_them(served: Walk) -> None:
    (shown,) = (block.text for block in blocks(API, "Answer") if block.language == "text")
    body = {"messages": [QUESTION], "stream": True, "stream_options": {"include_canvas": True}}

    lines = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=120).text.splitlines()

    event = lines.index(shown.splitlines()[0])
    canvas = json.loads(lines[event + 1].removeprefix("data: "))
    names = re.findall(r'"(\w+)": ', shown)
    assert names
    assert set(names) <= set(canvas)
    assert f'"object": "{canvas["object"]}"' in shown
    assert lines[-2] == "data: [DONE]"


@WAY
def test_loads_of_the_benchmarking_page_are_sent(served: Walk) -> None:
    opening = BENCHMARKING.replace("# Benchmarking", "## Opening")
    served.run([*blocks(opening, "Opening"), *blocks(BENCHMARKING, "Two endpoints")])

    one, two = (text for command, text in served.printed.items() if command.startswith("dllm bench"))
    assert re.search(r"^(\d+) of \1 requests answered", one, re.MULTILINE)
    assert "second / first" in two
    assert json.loads((served.folder / "run.json").read_text())
    assert "<html" in (served.folder / "run.html").read_text()


@WAY
def test_one_gpu_serves_what_was_planned(walk: Walk) -> None:
    walk.run(blocks(QUICKSTART, "One GPU"))

    (plan,) = (text for command, text in walk.printed.items() if "--max-model-len" in command and text)
    planned = re.search(r"^([\d,]+) pages of ", plan, re.MULTILINE)
    snapshot = httpx.get(f"{walk.url}/snapshot").json()
    (bench,) = (text for command, text in walk.printed.items() if "--profile chat" in command)
    assert planned is not None
    assert snapshot["pages"]["used"] + snapshot["pages"]["free"] == int(planned[1].replace(",", ""))
    assert re.search(r"^(\d+) of \1 requests answered", bench, re.MULTILINE)


@WAY
def test_the_readme_serves_and_measures(walk: Walk) -> None:
    walk.run(blocks(README, "Try it"))


def test_what_the_readme_says_of_clusters_is_what_the_quickstart_says() -> None:
    """Which tests/cluster/test_quickstart.py runs."""
    readme, quickstart = (
        {command for block in blocks(page, section) for command in commands(block.text)}
        for page, section in ((README, "On Kubernetes"), (QUICKSTART, "Cluster"))
    )

    assert readme
    assert readme - quickstart == set()


def test_every_block_of_these_pages_is_walked_through() -> None:
    """A fence of another section would be run by nobody."""
    for page, sections in (
        (QUICKSTART, ("Laptop", "One GPU", "Cluster")),
        (README, ("Try it", "On Kubernetes")),
    ):
        assert page.count("\n```\n") == sum(len(blocks(page, section)) for section in sections)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Walk]:
    """Walks pages of the tests' own."""
    with Walk(tmp_path, f"http://localhost:{free_port()}", {}, {"world": "planet"}) as own:
        yield own


def test_a_page_that_is_right_is_walked_through(own: Walk) -> None:
    commands = "echo 'hello\nworld' > said   # a file\ncat \\\n  said"
    page = f"## A\n```bash\n{commands}\n```\n\n```text\nhello\n...net\n```\n## B\n"

    own.run(blocks(page, "A"))

    assert own.printed == {"echo 'hello\nworld' > said": "", "cat said": "hello\nplanet\n"}


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("```bash\ncat missing\n```", "ended with 1"),
        ("```bash\nfalse | true\n```", "ended with 1"),
        ("```bash\nnosuchprogram --flag\n```", "ended with 127"),
        ("```bash\necho 1824\n```\n\n```text\n1823\n```", "not '1823"),
        ("```bash\necho 18 23\n```\n\n```text\n18...24\n```", "not '18...24"),
        ("```bash\necho 'open\n```", "a quote is open"),
        ("```python\nimport nosuchpackage\n```", "ended with 1"),
        ("```bash\nmake serve\n```", "No rule to make target"),
        ("```yaml\na: 1\n```", "nobody runs yaml"),
    ],
)
def test_a_page_that_is_wrong_is_told(own: Walk, block: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(reason)):
        own.run(blocks(f"## A\n{block}\n", "A"))
