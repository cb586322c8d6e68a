"""How a process of the bench has to be started so that its engine is shown an instruction set.

Everything that this needs is made by `make setup`, or is in the CPU image: in the folder `isa` beside the environments
of the engines there are the library that answers CPUID and the patched copies of the engines' libraries.
"""

import ctypes
import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError
from harness.host.isa.copies import LIBRARY, SITES, copy_of, libraries
from harness.host.isa.features import FEATURES, mask
from harness.plan.bench_settings import Isa
from harness.plan.cpu_table import Cpu
from harness.plan.specs import engine_plugin

# none: the process sees the host as it is
Way = Literal["none", "faulting", "patched"]
# The exit code of a process that the library ends because it cannot do what it was asked for.
REFUSED = 97
SYS_ARCH_PRCTL, ARCH_SET_CPUID = 158, 0x1012
# What numpy, in any of its versions, calls its groups of kernels for AVX-512, and a feature that each of them needs.
NUMPY_GROUPS = {
    "AVX512F": "avx512f",
    "AVX512CD": "avx512cd",
    "AVX512_SKX": "avx512bw",
    "X86_V4": "avx512bw",
    "AVX512_CLX": "avx512_vnni",
    "AVX512_CNL": "avx512vbmi",
    "AVX512_ICL": "avx512_vbmi2",
    "AVX512_SPR": "avx512_fp16",
}


@dataclass(frozen=True)
class Shown:
    """The instruction set that a process is started with, how, and what that takes.

    `features` are those that CPUID must show there, or None for those of the host. `variables` and `path` (folders in
    front of Python's own) have to be in its environment.
    """

    isa: Isa
    way: Way = "none"
    features: frozenset[str] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()


HOST = Shown("host")


def show(isa: Isa, target: Cpu, engine: str, python: Path, way: Way | None = None) -> Shown:
    """How to show an engine, named as in matrix.toml, an instruction set; `python` has the engine.

    The `way` is the best that there is here, or the one that is asked for. HarnessError says in a line why it cannot be
    done, and what would help.
    """
    if isa == "host":
        return HOST
    if reason := obstacle(target):
        raise HarnessError(reason)
    return masked(engine, python, target.features, way)


def masked(engine: str, python: Path, features: Collection[str] | None, way: Way | None = None) -> Shown:
    """How to show an engine these features and no others; None masks nothing, to see what the library itself costs.

    HarnessError where what `make setup` makes for it is not there.
    """
    folder = python.parents[2] / "isa"
    library = folder / LIBRARY
    if not library.is_file():
        raise HarnessError(f"{library}: not there, which a C compiler makes; install gcc, then run: make setup")
    way = way or ("faulting" if can_fault() else "patched")
    keep = mask(features) if features is not None else {}
    words = [":".join(f"{number:x}" for number in (*place, *answer)) for place, answer in keep.items()]
    variables = {"LD_PRELOAD": str(library), "HARNESS_CPUID_WAY": way, "HARNESS_CPUID_KEEP": " ".join(words)}
    expected = frozenset(features) if features is not None else None
    if way == "faulting":
        return Shown("target", way, expected, variables)
    copy = _copy(engine, python, folder)
    variables["HARNESS_CPUID_SITES"] = str(copy / SITES)
    return Shown("target", way, expected, {**variables, **_beside(features)}, (str(copy),))


def _copy(engine: str, python: Path, folder: Path) -> Path:
    plugin = engine_plugin(engine)
    if not libraries(plugin, python):
        raise HarnessError(
            f"the CPU cannot fault on CPUID, and {engine} names no libraries to patch; measure on an Intel CPU, "
            f"or give its file LIBRARIES"
        )
    copy = copy_of(plugin, python, folder)
    if not (copy / SITES).is_file():
        raise HarnessError(f"{copy}: no patched copy of {engine}'s libraries as they are installed; run: make setup")
    return copy


def _beside(features: Collection[str] | None) -> dict[str, str]:
    """For the patched way: variables by which libraries beside the engine hide what their own CPUID shows."""
    if features is None:
        return {}
    groups = [name for name, needs in NUMPY_GROUPS.items() if needs not in features]
    found = {"NPY_DISABLE_CPU_FEATURES": " ".join(groups)} if groups else {}
    if "avx512f" not in features:
        found["OPENBLAS_CORETYPE"] = "Haswell"
    return found


def obstacle(target: Cpu, flags: Collection[str] | None = None, machine: str | None = None) -> str:
    """Why this machine cannot show the target's instruction set, in a line; empty where it can.

    `flags` are those of /proc/cpuinfo.
    """
    machine = machine or f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        return f"the {target.title}'s instruction set can be shown on x86-64 Linux only, and this is {machine}"
    flags = host_flags() if flags is None else flags
    if missing := sorted(target.features - set(flags)):
        return (
            f"this CPU lacks {', '.join(missing)} of the {target.title}'s instruction set; "
            f"measure on one that has it, or name another bench.target"
        )
    return ""


def host_flags(root: Path = Path("/")) -> frozenset[str]:
    """The features that the kernel lists for this machine's CPU, of those that kernels are chosen by."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split()) & FEATURES.keys()


@cache
def can_fault() -> bool:
    """Whether the kernel lets CPUID fault: asked by telling it to leave this thread's CPUID as it is."""
    if platform.machine() != "x86_64" or os.name != "posix":
        return False
    return ctypes.CDLL(None).syscall(SYS_ARCH_PRCTL, ARCH_SET_CPUID, 1) == 0
