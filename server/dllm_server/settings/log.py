"""What the processes of the server and of the operator log, and how."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class LogFormat(StrEnum):
    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogSettings(BaseModel):
    """What a process logs on stderr, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="Smallest level that is logged."
    )
    log_format: LogFormat = Field(
        LogFormat.AUTO,
        description="json has one object a line, console is for people; auto is console on a terminal.",
    )
