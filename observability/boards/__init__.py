"""The dashboards: fleet, engine, tuning."""

from observability.boards.engine import ENGINE
from observability.boards.fleet import FLEET
from observability.boards.tuning import TUNING

BOARDS = (FLEET, ENGINE, TUNING)
