from pathlib import Path

from dllm_server.cli.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_configuration_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text() == reference(), "run: python -m dllm_server.cli.reference > docs/configuration.md"
