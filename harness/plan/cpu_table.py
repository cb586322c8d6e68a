"""The CPUs that a bench can stand in for (cpus.toml): the instruction set that is shown, and what is not mimicked."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import HarnessError

TABLE = Path(__file__).with_name("cpus.toml")


@dataclass(frozen=True)
class Cpu:
    """A real CPU. `features` are those of its instruction set that kernels are chosen by, named as by Linux."""

    name: str
    title: str
    # the -march under which GCC knows these features
    gcc: str
    features: frozenset[str]
    physical_cores: int
    l3_mib: float
    base_ghz: float

    @property
    def vectors(self) -> "Vectors":
        """Its vector instructions, in words and numbers."""
        found = vectors(self.features)
        assert found, "every CPU of the table has AVX2"
        return found


class Vectors(NamedTuple):
    """Vector instructions in words, and how many fp32 channels a block of ONNX Runtime's NCHWc layout has with them."""

    words: str
    channels: int


# By the features that tell them apart, widest first.
KINDS: Mapping[str, Vectors] = {
    "amx_bf16": Vectors("AVX-512 with BF16 and AMX", 16),
    "avx512_bf16": Vectors("AVX-512 with BF16", 16),
    "avx512_vnni": Vectors("AVX-512 with VNNI", 16),
    "avx512f": Vectors("AVX-512", 16),
    "avx_vnni": Vectors("AVX2 with VNNI", 8),
    "avx2": Vectors("AVX2", 8),
    "asimd": Vectors("NEON", 4),
}


def vectors(features: Collection[str]) -> Vectors | None:
    """The vector instructions of a CPU with these features; None where they are of no kind that is known here."""
    return next((kind for feature, kind in KINDS.items() if feature in features), None)


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


def whose_instruction_set(isa: str) -> str:
    """In words, under which instruction set a measurement is; `isa` as its stage has it: a CPU's name, or "host"."""
    return "the machine's own instruction set" if isa == "host" else f"instruction set of the {find_cpu(isa).name}"


def _cpu(name: str, document: Mapping[str, dict[str, Any]]) -> Cpu:
    entry = {key: value for key, value in document[name].items() if key != "like"}
    inherited = _cpu(document[name]["like"], document).features if "like" in document[name] else frozenset()
    return Cpu(name=name, **{**entry, "features": inherited | frozenset(entry["features"])})
