"""The interpreters that have the engines: one environment per variant, in .venvs; or this process's own."""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.plan.bench_settings import engine_environment, is_here

ROOT = Path(__file__).parents[2]


def bench_pythons(engines: Sequence[str]) -> dict[str, Path]:
    """The interpreter of each engine's environment."""
    return {engine: bench_python(engine) for engine in engines}


def bench_python(engine: str) -> Path:
    """The interpreter of an engine's environment; HarnessError where that has not been made."""
    if python := find_python(engine):
        return python
    raise HarnessError(f".venvs/{engine_environment(engine)}/bin/python: not there; run: make setup")


def find_python(engine: str) -> Path | None:
    """The interpreter of an engine's environment, in this folder's .venvs or the checkout's, if it has been made."""
    if is_here(engine):
        return Path(sys.executable)
    python = Path(".venvs") / engine_environment(engine) / "bin/python"
    return next(((root / python).absolute() for root in (Path.cwd(), ROOT) if (root / python).is_file()), None)
