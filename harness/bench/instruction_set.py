"""What instruction set this process was shown: demanded before it measures, and put on record afterwards."""

import ctypes
import sys

from harness.bench.engines import Engine
from harness.errors import HarnessError
from harness.host.isa.features import Answer, seen
from harness.host.isa.proof import disagreements
from harness.host.isa.shown import Shown, host_flags
from harness.store.records import InstructionSet


def require_shown(shown: Shown) -> None:
    """Raise HarnessError unless CPUID answers in this process as it was asked to."""
    found = InstructionSet(way=shown.way, cpuid=_cpuid(shown), numpy=_numpy(), engine={})
    _require(found, shown)


def evidence(shown: Shown, engine: Engine, threads: int) -> InstructionSet:
    """What everybody says, the engine included. HarnessError where they contradict one another.

    To be asked when nothing is left to be timed: the engine runs models of its own for it.
    """
    found = InstructionSet(way=shown.way, cpuid=_cpuid(shown), numpy=_numpy(), engine=engine.kernels(threads))
    _require(found, shown)
    return found


def _require(found: InstructionSet, shown: Shown) -> None:
    wanted = sorted(shown.features) if shown.features is not None else found.cpuid if shown.way != "none" else None
    if reasons := list(disagreements(found, wanted)):
        raise HarnessError(f"not the instruction set that was asked for: {'; '.join(reasons)}")


def _cpuid(shown: Shown) -> list[str]:
    """The features that CPUID shows: as the library answers it, or the kernel where there is no library."""
    if shown.way == "none":
        return sorted(host_flags())
    # Preloaded, it is one of the process's own; loaded here it would be too late.
    process = ctypes.CDLL(None)
    if not hasattr(process, "harness_cpuid"):
        raise HarnessError("the library that answers CPUID was not preloaded; is this Python linked statically?")

    def ask(leaf: int, subleaf: int) -> Answer:
        words = (ctypes.c_uint32 * 4)()
        process.harness_cpuid(ctypes.c_uint32(leaf), ctypes.c_uint32(subleaf), words)
        return words[0], words[1], words[2], words[3]

    return seen(ask)


def _numpy() -> list[str]:
    """The groups of kernels that numpy uses on this CPU."""
    core = sys.modules.get("numpy._core._multiarray_umath") or sys.modules.get("numpy.core._multiarray_umath")
    features: dict[str, bool] = getattr(core, "__cpu_features__", {})
    return sorted(name for name, there in features.items() if there)
