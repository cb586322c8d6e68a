import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.host.isa.features import ALL_ONES, FEATURES, NOTHING, REGISTERS, Answer, mask, seen
from harness.host.isa.shown import NUMPY_GROUPS
from harness.plan.cpu_table import Cpu, cpus, find_cpu

some = st.sets(st.sampled_from(sorted(FEATURES)))


def answered(has: set[str], shown: set[str]) -> list[str]:
    """What is seen of a CPU with some features, of which others are shown."""
    kept = mask(shown)

    def ask(leaf: int, subleaf: int) -> Answer:
        words = [0, 0, 0, 0]
        for name in has:
            if FEATURES[name][:2] == (leaf, subleaf):
                words[REGISTERS.index(FEATURES[name].register)] |= 1 << FEATURES[name].bit
        first, second, third, fourth = (
            word & keep for word, keep in zip(words, kept.get((leaf, subleaf), ALL_ONES), strict=True)
        )
        return first, second, third, fourth

    return seen(ask)


@given(has=some, shown=some)
def test_a_masked_cpu_shows_those_of_its_features_that_it_is_to_show_and_no_others(
    has: set[str], shown: set[str]
) -> None:
    assert answered(has, shown) == sorted(has & shown)


@given(shown=some)
def test_a_mask_hides_features_and_what_describes_them_and_nothing_else(shown: set[str]) -> None:
    kept = mask(shown)
    hidden = {
        (leaf, subleaf, register, bit)
        for (leaf, subleaf), answer in kept.items()
        for register, word in zip(REGISTERS, answer, strict=True)
        for bit in range(32)
        if not word >> bit & 1 and (leaf, subleaf) in {(1, 0), (7, 0), (0x80000001, 0)}
    }
    assert hidden == {tuple(FEATURES[name]) for name in FEATURES.keys() - shown if FEATURES[name][:2] != (7, 1)}, (
        "in the leaves that say other things as well, only bits of features are cleared"
    )
    assert ((0xD, 5) in kept) == ("avx512f" not in shown)
    assert ((0x1D, 0) in kept) == ("amx_tile" not in shown)
    assert kept.get((0x24, 0), ALL_ONES) == (ALL_ONES if "avx10" in shown else NOTHING)
    # The room that XSAVE needs is not hidden: XGETBV goes on saying what is enabled.
    assert kept.get((0xD, 0), ALL_ONES)[1:] == ALL_ONES[1:]


def test_no_two_features_are_the_same_bit() -> None:
    assert len(set(FEATURES.values())) == len(FEATURES)


# What GCC calls a feature where it does not use Linux's name without underscores.
GCC_NAMES = {
    "sse3": "pni",
    "pclmul": "pclmulqdq",
    "lzcnt": "abm",
    "sha": "sha_ni",
    "bmi": "bmi1",
    "avxvnni": "avx_vnni",
}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compare with")
@pytest.mark.parametrize("cpu", cpus().values(), ids=list(cpus()))
def test_the_table_has_the_features_that_gcc_knows_of_each_cpu(cpu: Cpu) -> None:
    command = ["gcc", f"-march={cpu.gcc}", "-Q", "--help=target"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this gcc does not know {cpu.gcc}")
    listed = re.findall(r"^\s+-m(\S+)\s+\[enabled\]", done.stdout, re.MULTILINE)
    by_gcc = {name.replace("_", ""): name for name in FEATURES}
    plain = (name.replace("-", "").replace(".", "") for name in listed)
    known = {GCC_NAMES.get(name, by_gcc.get(name, "")) for name in plain} - {""}
    # Of Sapphire Rapids GCC 12 knows VP2INTERSECT, which later ones and the CPU do not have. No engine looks at SSE4a.
    assert known - cpu.features <= {"avx512_vp2intersect", "sse4a"}
    # GCC does not count on it in Broadwell, because some Pentiums of that family lack it.
    assert cpu.features - known <= {"aes"}


def test_every_cpu_of_the_table_is_made_of_known_features_and_has_avx2() -> None:
    for cpu in cpus().values():
        assert cpu.features <= FEATURES.keys()
        assert {"avx2", "fma"} <= cpu.features
        assert cpu.vectors.channels == (16 if "avx512f" in cpu.features else 8)
    assert {cpu.vectors.words for cpu in cpus().values()} == {
        "AVX2",
        "AVX-512",
        "AVX-512 with VNNI",
        "AVX-512 with BF16 and AMX",
    }


@pytest.mark.parametrize("name", ["i9-9900K", "I9-9900k", "Intel Core i9-9900K"])
def test_a_cpu_is_found_by_its_name_or_its_title_in_any_case(name: str) -> None:
    assert find_cpu(name).name == "i9-9900K"


def test_numpys_groups_need_features_that_exist() -> None:
    assert set(NUMPY_GROUPS.values()) <= FEATURES.keys()


def test_the_c_source_masks_leaves_without_subleaves_whatever_the_caller_left_in_ecx() -> None:
    """cpuid.c has a list of its own of the leaves in which ecx names a subleaf."""
    source = (Path(__file__).parents[3] / "harness/host/isa/cpuid.c").read_text()
    found = re.search(r"has_subleaves\(uint32_t leaf\) \{ return (.*?); \}", source)
    assert found
    condition = found[1].replace("||", "or").replace("&&", "and")
    for leaf, subleaf in mask(()):
        if eval(condition, {"leaf": leaf}):
            continue
        assert subleaf == 0
        assert (leaf, 1) not in mask(())
    assert eval(condition, {"leaf": 7}) and eval(condition, {"leaf": 0xD}) and not eval(condition, {"leaf": 1})
