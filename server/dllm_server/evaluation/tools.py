"""Tools of the calling tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """An argument. ``values`` of a string are examples, unless they are all that it may be."""

    name: str
    kind: str = "string"
    values: tuple[str, ...] = ()
    span: tuple[int, int] = (0, 120)
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    slots: tuple[Slot, ...]


_CITIES = (
    "Lyon",
    "Oslo",
    "Rome",
    "Cairo",
    "Lima",
    "Delhi",
    "Kyoto",
    "Paris",
    "Berlin",
    "Madrid",
    "Boston",
    "Perth",
)
_NAMES = (
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Elena",
    "Grace",
    "Hugo",
    "Jonas",
    "Liam",
    "Mina",
    "Olga",
    "Tara",
    "Zoe",
)
_CURRENCIES = ("EUR", "USD", "GBP", "JPY")


def _integer(name: str, least: int, most: int) -> Slot:
    return Slot(name, "integer", span=(least, most))


def _enum(name: str, *values: str) -> Slot:
    return Slot(name, values=values, is_closed=True)


TOOLS = (
    Tool(
        "get_weather",
        "Weather of a city.",
        (Slot("city", values=_CITIES),),
    ),
    Tool(
        "add",
        "Adds two numbers.",
        (_integer("a", 0, 999), _integer("b", 0, 999)),
    ),
    Tool(
        "set_timer",
        "Starts a timer.",
        (_integer("minutes", 1, 120),),
    ),
    Tool(
        "send_message",
        "Sends a message to a person.",
        (Slot("to", values=_NAMES), Slot("text", values=("hello", "thanks", "yes", "later", "goodbye"))),
    ),
    Tool(
        "convert_currency",
        "Converts money.",
        (
            _integer("amount", 1, 900),
            _enum("from", "EUR", "USD", "GBP", "JPY"),
            _enum("to", "EUR", "USD", "GBP", "JPY"),
        ),
    ),
    Tool(
        "play_music",
        "Plays an artist's songs.",
        (Slot("artist", values=("Adele", "Mozart", "Bach", "Queen", "Prince", "Sade", "Moby")),),
    ),
    Tool(
        "book_table",
        "Books a table in a restaurant.",
        (
            Slot("restaurant", values=("Roma", "Sakura", "Bistro", "Olive", "Tandoor")),
            _integer("people", 1, 12),
        ),
    ),
    Tool(
        "turn_light",
        "Switches the light of a room.",
        (
            Slot("room", values=("kitchen", "bedroom", "hall", "garage", "office")),
            _enum("state", "on", "off"),
        ),
    ),
    Tool(
        "translate",
        "Translates a word.",
        (
            Slot("word", values=("house", "water", "bread", "friend", "garden")),
            _enum("language", "French", "German", "Spanish", "Italian"),
        ),
    ),
    Tool(
        "find_train",
        "Finds trains between two cities.",
        (Slot("start", values=_CITIES), Slot("end", values=_CITIES)),
    ),
    Tool(
        "create_event",
        "Puts an event into the calendar.",
        (
            Slot("title", values=("lunch", "meeting", "dentist", "training", "concert")),
            _enum("day", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
            _integer("hour", 0, 23),
        ),
    ),
    Tool(
        "order_item",
        "Orders things in the shop.",
        (
            Slot("item", values=("lamps", "mugs", "pens", "chairs", "books")),
            _integer("quantity", 1, 60),
            Slot("gift", "boolean"),
        ),
    ),
    Tool(
        "search_books",
        "Searches the library.",
        (Slot("query", values=("rivers", "stars", "history", "music", "bees")), _integer("limit", 1, 50)),
    ),
)
