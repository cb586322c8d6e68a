"""The CPUs that a bench can stand in for (cpus.toml): the instruction set that is shown, and what is not mimicked."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

TABLE = Path(__file__).with_name("cpus.toml")


@dataclass(frozen=True)
class Cpu:
    """A real CPU. `features` are those of its instruction set that kernels are chosen by, named as by Linux."""

    name: str
    title: str
    # the -march under which GCC knows these features
    gcc: str
    # in words, as tables say it
    isa: str
    # fp32 channels per block of ONNX Runtime's NCHWc layout
    vector_channels: int
    features: frozenset[str]
    physical_cores: int
    l3_mib: float
    base_ghz: float


@cache
def cpus() -> Mapping[str, Cpu]:
    """Every CPU of the table, by name."""
    document = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {name: _cpu(name, document) for name in document}


def find_cpu(name: str) -> Cpu:
    """A CPU by its name, or by the title that tables use; upper and lower case do not matter.

    HarnessError names those that there are.
    """
    wanted = name.casefold()
    for cpu in cpus().values():
        if wanted in (cpu.name.casefold(), cpu.title.casefold()):
            return cpu
    raise HarnessError(f"unknown CPU {name!r}; allowed: {', '.join(cpus())}")


def _cpu(name: str, document: Mapping[str, dict[str, Any]]) -> Cpu:
    entry = {key: value for key, value in document[name].items() if key != "like"}
    inherited = _cpu(document[name]["like"], document).features if "like" in document[name] else frozenset()
    return Cpu(name=name, **{**entry, "features": inherited | frozenset(entry["features"])})
