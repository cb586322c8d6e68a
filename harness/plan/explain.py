"""What pydantic finds wrong with matrix.toml, as one line in the file's own words: which key, and what is allowed."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(
    error: ValidationError, root: type[BaseModel], document: Mapping[str, Any], profile: str, overlay: Mapping[str, Any]
) -> str:
    """The first fault of `document`, which is to be a `root`: the matrix with a profile's `overlay` laid over it."""
    # An unknown key explains a missing one better than the other way round.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location = _in_document(document, first)
    # Where several types are allowed, pydantic reports one error for each.
    alike = [found for found in error.errors() if _in_document(document, found) == location]
    where = _spell(document, location)
    if location and _has(overlay, location):
        where = f"profile.{profile}.{where}"
    elif first["type"] == "missing":
        where = f"profile {profile}: {where}"
    return f"{where + ': ' if where else ''}{_reason(root, alike, location)}"


def _has(document: Any, location: tuple[Any, ...]) -> bool:
    for part in location:
        if not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return True


def _in_document(document: Any, error: Any) -> tuple[Any, ...]:
    """An error's place as the file has it, without the names that pydantic adds for unions and for keys."""
    location = error["loc"]
    if error["type"] in ("extra_forbidden", "missing"):
        return tuple(location)
    place = []
    for part in location:
        inside = (
            part in document if isinstance(document, dict) else isinstance(document, list) and isinstance(part, int)
        )
        if not inside:
            break
        place.append(part)
        document = document[part]
    return tuple(place)


def _spell(document: Any, location: tuple[Any, ...]) -> str:
    """`experiment[seeds].prune_amount[0]`: tables in a list go by their name, other items by number from 0."""
    text = ""
    for part in location:
        document = document[part] if isinstance(document, list) or part in document else None
        named = document.get("name") if isinstance(document, dict) else None
        name = named if isinstance(named, str) else part
        text += f"[{name}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _reason(root: type[BaseModel], errors: list[Any], location: tuple[Any, ...]) -> str:
    kind = errors[0]["type"]
    if kind == "extra_forbidden":
        return f"unknown key; allowed: {', '.join(allowed_keys(root, location[:-1])) or 'none'}"
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "dict_type"):
        return "must be a table"
    messages = [error["msg"].removeprefix("Value error, ") for error in errors]
    message = ", or ".join(dict.fromkeys(text[0].lower() + text[1:] for text in messages))
    given = errors[0].get("input")
    shown = f" (got {given!r})" if kind != "value_error" and isinstance(given, str | int | float | bool) else ""
    return message + shown


def allowed_keys(root: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys of the table at this place of the document."""
    here: Any = root
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(part)].annotation
        else:
            # a list of tables or a table of tables: step into what it holds
            here = get_args(here)[-1]
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
