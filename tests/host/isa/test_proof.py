from typing import Any

import pytest

from harness.host.isa.proof import disagreements
from harness.plan.cpu_table import Cpu, cpus, find_cpu
from harness.store.records import InstructionSet

TARGET = find_cpu("i9-9900K")


def evidence(cpu: Cpu, **changes: Any) -> InstructionSet:
    """What is found where a CPU's instruction set is shown."""
    wide, vnni = "avx512f" in cpu.features, "avx512_vnni" in cpu.features
    fields: dict[str, Any] = {
        "way": "faulting",
        "cpuid": sorted(cpu.features),
        "numpy": ["AVX2", *(["AVX512F", "AVX512_SKX"] if wide else [])],
        "engine": {"nchwc_block": 16 if wide else 8, "exact_byte_sums": vnni},
    }
    return InstructionSet(**fields | changes)


@pytest.mark.parametrize("cpu", cpus().values(), ids=list(cpus()))
def test_what_fits_is_not_complained_of(cpu: Cpu) -> None:
    assert list(disagreements(evidence(cpu), cpu.features)) == []
    assert list(disagreements(evidence(cpu, way="none"), None)) == [], "the host's own may be any"
    assert list(disagreements(evidence(cpu, engine={}), cpu.features)) == [], "an engine may have no account"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"way": "none"}, "nothing was masked"),
        ({"cpuid": sorted(TARGET.features | {"avx512f", "sha_ni"}), "engine": {}}, "shows avx512f, sha_ni, which the"),
        ({"cpuid": sorted(TARGET.features - {"fma"})}, "CPUID does not show fma, which the target has"),
        ({"numpy": ["AVX2", "AVX512_SKX"]}, "numpy uses AVX512_SKX, which CPUID does not show"),
        ({"numpy": ["AVX2", "X86_V4"]}, "numpy uses X86_V4, which CPUID does not show"),
        ({"engine": {"nchwc_block": 16}}, "blocks channels by 16, and with this instruction set it would by 8"),
        ({"engine": {"exact_byte_sums": True}}, "adds products of bytes exactly, as with VNNI alone"),
    ],
)
def test_each_contradiction_is_named(changes: dict[str, Any], said: str) -> None:
    (found,) = disagreements(evidence(TARGET, **changes), TARGET.features)
    assert said in found


def test_the_hosts_own_must_not_have_been_masked() -> None:
    (found,) = disagreements(evidence(TARGET), None)
    assert found == "the host's own was wanted, and CPUID was answered (faulting)"


def test_an_engine_that_saturates_where_vnni_is_shown_did_not_see_it() -> None:
    cpu = cpus()["Xeon-8280"]
    (found,) = disagreements(evidence(cpu, engine={"exact_byte_sums": False}), cpu.features)
    assert found == "the engine adds products of bytes with saturation, as without VNNI"


def test_another_architectures_accounts_are_not_judged_by_x86() -> None:
    arm = InstructionSet(
        way="none", cpuid=[], numpy=["NEON", "ASIMD"], engine={"nchwc_block": 4, "exact_byte_sums": True}
    )
    assert list(disagreements(arm, None)) == []
