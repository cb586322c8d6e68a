"""Whether a process was shown the instruction set that it was meant to see, by the accounts of those who looked."""

from collections.abc import Collection, Iterator

from harness.host.isa.shown import NUMPY_GROUPS
from harness.store.records import InstructionSet

# What an engine calls its accounts (harness.bench.engines.Engine.kernels).
BLOCK, EXACT_SUMS = "nchwc_block", "exact_byte_sums"


def disagreements(found: InstructionSet, wanted: Collection[str] | None) -> Iterator[str]:
    """What of the evidence contradicts the rest of it, or the features that were `wanted` (None: the host's)."""
    seen = set(found.cpuid)
    if wanted is not None and found.way == "none":
        yield "nothing was masked"
    if wanted is None and found.way != "none":
        yield f"the host's own was wanted, and CPUID was answered ({found.way})"
    if wanted is not None and (beyond := seen - set(wanted)):
        yield f"CPUID shows {_listed(beyond)}, which the target lacks"
    if wanted is not None and (missing := set(wanted) - seen):
        yield f"CPUID does not show {_listed(missing)}, which the target has"
    if beyond := {group for group in found.numpy if NUMPY_GROUPS.get(group, "") not in {"", *seen}}:
        yield f"numpy uses {_listed(beyond)}, which CPUID does not show"
    block = found.engine.get(BLOCK)
    if block is not None and "avx2" in seen and block != (expected := 16 if "avx512f" in seen else 8):
        yield f"the engine blocks channels by {block}, and with this instruction set it would by {expected}"
    exact = found.engine.get(EXACT_SUMS)
    # With AVX-VNNI alone it depends on the engine's version.
    if exact is not None and "avx2" in seen and "avx_vnni" not in seen and exact != ("avx512_vnni" in seen):
        how = "exactly, as with VNNI alone" if exact else "with saturation, as without VNNI"
        yield f"the engine adds products of bytes {how}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
