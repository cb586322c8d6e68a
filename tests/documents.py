"""matrix.toml as data that a test can change and write again."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.plan.settings import Settings

ROOT = Path(__file__).parent.parent
DOCUMENT: dict[str, Any] = tomllib.loads((ROOT / "matrix.toml").read_text(encoding="utf-8"))
PROFILES = ["quick", "lite", "overnight", "full", "long", "reference"]
Load = Callable[..., Settings]


def put(document: dict[str, Any], place: str, value: Any) -> None:
    """Set `experiment.0.seed` or the like."""
    *above, last = place.split(".")
    here: Any = document
    for part in above:
        here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
    here[last] = value


def as_toml(value: Any, inline: bool = False) -> str:
    """A document of tables, lists and scalars as TOML text, in the order in which it comes."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key)} = {as_toml(item, inline=True)}" for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}" if inline else "\n".join(pairs) + "\n"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item, inline=True) for item in value) + "]"
    # repr of a float is TOML, inf and nan included; JSON's strings and booleans are too
    return repr(value) if isinstance(value, float) else json.dumps(value)
