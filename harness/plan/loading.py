"""Reads matrix.toml and lays a profile over it."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.errors import HarnessError
from harness.files import read_text
from harness.plan.explain import explain
from harness.plan.settings import Name, Settings

NAME: TypeAdapter[str] = TypeAdapter(Name)


def load_settings(path: Path, profile: str) -> Settings:
    """matrix.toml with `profile` laid over it. All profiles are checked, so that none rots unseen.

    Raises HarnessError naming file, key and what is allowed.
    """
    document = _read(path)
    profiles = document.pop("profile", {})
    if not isinstance(profiles, dict) or not all(isinstance(overlay, dict) for overlay in profiles.values()):
        raise HarnessError(f"{path}: profile: must be tables, like [profile.quick]")
    for name in profiles:
        try:
            # it becomes part of paths
            NAME.validate_python(name)
        except ValidationError:
            raise HarnessError(
                f"{path}: profile.{name}: not a name; use lower-case letters, digits, dots and hyphens"
            ) from None
    if profile not in profiles:
        raise HarnessError(
            f"{path}: profile {profile!r} does not exist; allowed: {', '.join(profiles) or 'none is there'}"
        )
    return {name: _resolve(path, document, name, overlay) for name, overlay in profiles.items()}[profile]


def profile_names(path: Path) -> list[str]:
    """The profiles that matrix.toml defines."""
    profiles = _read(path).get("profile", {})
    return list(profiles) if isinstance(profiles, dict) else []


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path, "not found; run from the project's folder or name the file with --matrix")
    try:
        return tomllib.loads(text)
    # a ValueError of its own is a number of more digits than Python converts
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path}: not valid TOML: {error}") from error


def _resolve(path: Path, document: dict[str, Any], name: str, overlay: dict[str, Any]) -> Settings:
    if "experiment" in overlay or "protocol" in overlay:
        raise HarnessError(
            f"{path}: profile.{name}: experiments and protocols are shared; a profile cannot change them"
        )
    merged = _merge(document, overlay)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise HarnessError(f"{path}: {explain(error, Settings, merged, name, overlay)}") from error


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
