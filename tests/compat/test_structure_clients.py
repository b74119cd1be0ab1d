"""Clients that make objects of answers and of calls: by all of their ways to ask, what they make is what its
schema says. The model is random, so nothing but the grammar sees to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.compat.conftest import Served
from tests.compat.drivers.orders import MAX_TOKENS, QUESTION, Order
from tests.compat.environment import ENVIRONMENT, INSTRUCTOR, Clients, Told
from tests.walkthrough import blocks

pytestmark = [
    pytest.mark.compat,
    pytest.mark.slow,
    pytest.mark.sampled(0.4, of="clients of structure"),
]

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def check(told: Told) -> None:
    answers = told.answers()
    assert answers
    for answer in answers.values():
        Order.model_validate(answer)


@pytest.mark.parametrize("driver", ["openai_structure", "langchain_structure", "pydantic_ai_client"])
def test_a_client_makes_what_its_schema_says(clients: Clients, structured: Served, driver: str) -> None:
    check(clients.drive(driver, *structured.address))


def test_instructor_makes_what_its_schema_says(clients: Clients, structured: Served) -> None:
    check(clients.drive("instructor_client", *structured.address, environment=INSTRUCTOR))


def test_the_ai_sdk_makes_what_its_schema_says(node_clients: Clients, structured: Served) -> None:
    check(node_clients.drive_node("ai_sdk_client", *structured.address))


def test_llm_prints_and_logs_what_its_schema_says(
    clients: Clients, structured: Served, tmp_path: Path
) -> None:
    model = {
        "model_id": "served",
        "model_name": structured.model,
        "api_base": f"{structured.url}/v1",
        "api_key_name": "dllm",
        "supports_schema": True,
    }
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump([model]))
    schema = json.dumps(Order.model_json_schema())
    asked = ["-m", "served", "--key", structured.key, "-o", "max_tokens", str(MAX_TOKENS), "--schema", schema]
    variables = {"LLM_USER_PATH": str(tmp_path)}

    streamed = clients.run("llm", *asked, QUESTION, variables=variables)
    whole = clients.run("llm", *asked, "--no-stream", QUESTION, variables=variables)
    logged = clients.run("llm", "logs", "--schema", schema, "--data", variables=variables)

    assert Order.model_validate_json(streamed) == Order.model_validate_json(whole)
    assert [json.loads(line) for line in logged.splitlines()] == [json.loads(whole)] * 2


def test_what_the_api_page_shows_of_clients_runs(clients: Clients, structured: Served) -> None:
    served = {"http://localhost:8000": structured.url, "API_KEY": structured.key, "MODEL": structured.model}

    for block, environment in zip(blocks(API, "Typed answers"), (INSTRUCTOR, ENVIRONMENT), strict=True):
        program = block.text
        for words, other in served.items():
            assert words in program
            program = program.replace(words, other)
        printed = clients.run("python", "-c", program, environment=environment)
        assert re.fullmatch(r"drink='(tea|coffee)' cups=[1-9]\n", printed)
