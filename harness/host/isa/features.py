"""The features of an instruction set that kernels are chosen by: which CPUID bits they are, and how to hide some.

Bits are from Intel's "Software Developer's Manual", volume 2, CPUID, and "AMD64 Architecture Programmer's Manual",
volume 3, appendix E. Names are those that Linux gives them in /proc/cpuinfo.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

Register = Literal["eax", "ebx", "ecx", "edx"]
REGISTERS: tuple[Register, ...] = ("eax", "ebx", "ecx", "edx")
# (leaf, subleaf) -> the four registers that CPUID answers with
Answer = tuple[int, int, int, int]
ALL_ONES: Answer = (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
NOTHING: Answer = (0, 0, 0, 0)


class Bit(NamedTuple):
    """Where CPUID says whether a feature is there."""

    leaf: int
    subleaf: int
    register: Register
    bit: int


def _bits(leaf: int, subleaf: int, register: Register, **names: int) -> dict[str, Bit]:
    return {name: Bit(leaf, subleaf, register, bit) for name, bit in names.items()}


# fmt: off
FEATURES: Mapping[str, Bit] = {
    **_bits(1, 0, "ecx", pni=0, pclmulqdq=1, ssse3=9, fma=12, sse4_1=19, sse4_2=20, movbe=22, popcnt=23, aes=25, avx=28,
            f16c=29),
    **_bits(7, 0, "ebx", bmi1=3, avx2=5, bmi2=8, avx512f=16, avx512dq=17, adx=19, avx512ifma=21, avx512pf=26,
            avx512er=27, avx512cd=28, sha_ni=29, avx512bw=30, avx512vl=31),
    **_bits(7, 0, "ecx", avx512vbmi=1, avx512_vbmi2=6, gfni=8, vaes=9, vpclmulqdq=10, avx512_vnni=11, avx512_bitalg=12,
            avx512_vpopcntdq=14),
    **_bits(7, 0, "edx", avx512_4vnniw=2, avx512_4fmaps=3, avx512_vp2intersect=8, amx_bf16=22, avx512_fp16=23,
            amx_tile=24, amx_int8=25),
    **_bits(7, 1, "eax", avx_vnni=4, avx512_bf16=5, amx_fp16=21, avx_ifma=23),
    **_bits(7, 1, "edx", avx_vnni_int8=4, avx_ne_convert=5, amx_complex=8, avx_vnni_int16=10, avx10=19),
    **_bits(0x80000001, 0, "ecx", abm=5, sse4a=6, xop=11, fma4=16),
}
# fmt: on
# What describes a feature beside its own bit, as (leaf, subleaf) -> the bits to keep, where the feature is hidden. An
# answer that hid AVX-512 and went on listing its registers would be that of no CPU.
#
# Leaf 0xD lists the register states that XSAVE saves (eax of subleaf 0; a subleaf for each). How large they are (ebx
# and ecx of subleaf 0) stays as it is: what XGETBV says cannot be hidden, so a program that saves all that is enabled
# needs as much room as before.
DESCRIBED: Mapping[str, Mapping[tuple[int, int], Answer]] = {
    "avx512f": {
        (0xD, 0): (~0b1110_0000 & 0xFFFFFFFF, *ALL_ONES[1:]),
        (0xD, 5): NOTHING,
        (0xD, 6): NOTHING,
        (0xD, 7): NOTHING,
    },
    "amx_tile": {
        (0xD, 0): (~(0b11 << 17) & 0xFFFFFFFF, *ALL_ONES[1:]),
        (0xD, 17): NOTHING,
        (0xD, 18): NOTHING,
        (0x1D, 0): NOTHING,
        (0x1D, 1): NOTHING,
        (0x1E, 0): NOTHING,
        (0x1E, 1): NOTHING,
    },
    "avx10": {(0x24, 0): NOTHING, (0x24, 1): NOTHING},
}


def mask(features: Collection[str]) -> dict[tuple[int, int], Answer]:
    """Which bits of CPUID's answers to keep, by (leaf, subleaf), so that no feature but these is seen."""
    kept: dict[tuple[int, int], Answer] = {}

    def keep(place: tuple[int, int], answer: Answer) -> None:
        before = kept.get(place, ALL_ONES)
        kept[place] = (
            before[0] & answer[0], before[1] & answer[1], before[2] & answer[2], before[3] & answer[3]
        )  # fmt: skip

    for name in FEATURES.keys() - set(features):
        leaf, subleaf, register, bit = FEATURES[name]
        keep((leaf, subleaf), _only(register, ~(1 << bit) & 0xFFFFFFFF, ALL_ONES))
        for place, answer in DESCRIBED.get(name, {}).items():
            keep(place, answer)
    # What else this leaf may show is newer than the table above, and so than every CPU of cpus.toml.
    newest = [_only(bit.register, 1 << bit.bit, NOTHING) for name, bit in FEATURES.items() if bit[:2] == (7, 1)]
    known = (0, 0, 0, 0)
    for answer in newest:
        known = (known[0] | answer[0], known[1] | answer[1], known[2] | answer[2], known[3] | answer[3])
    keep((7, 1), known)
    return dict(sorted(kept.items()))


def _only(register: Register, word: int, others: Answer) -> Answer:
    """The answer with one register replaced."""
    words = [word if name == register else other for name, other in zip(REGISTERS, others, strict=True)]
    return words[0], words[1], words[2], words[3]


def seen(ask: Callable[[int, int], Answer]) -> list[str]:
    """The features that CPUID's answers show, sorted; `ask` gives the answer to a (leaf, subleaf)."""
    answers = {place: ask(*place) for place in {(bit.leaf, bit.subleaf) for bit in FEATURES.values()}}
    return sorted(
        name
        for name, (leaf, subleaf, register, bit) in FEATURES.items()
        if answers[leaf, subleaf][REGISTERS.index(register)] >> bit & 1
    )
