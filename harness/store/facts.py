"""Open tables of a record: what a machine, an engine or a plug-in says of itself, under names of its own.

Records come from elsewhere too (merge), so nothing in such a table is taken on trust. Facts that the harness computes
with have the type that it writes; of the others only what JSON can hold is asked.
"""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, TypeAdapter
from typing_extensions import TypedDict

# Deeper than any settings are nested: a stage holds its parent, and that its own.
DEEPEST = 50
# Python refuses to spell longer ones, and none of ours is longer than 64 bits.
LARGEST = 2**64


class Facts(TypedDict, total=False):
    """Facts that figures, tables or checks are made from; each may be missing or null."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    run: str | None
    cpu: str | None
    image: str | None
    device: str | None
    isa: list[str] | None
    isa_obstacle: str | None
    physical_cores: int | None
    measured_cpus: list[int] | None
    caches_kib: dict[str, float] | None
    steal_pct: float | None
    nr_throttled: float | None
    virtualised: bool | None
    enclosure: dict[str, Any] | None
    session: dict[str, Any] | None
    harness_revision: str | None
    # of an engine's options
    intra_op_num_threads: int | None


_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)


def _typed(table: dict[str, Any]) -> dict[str, Any]:
    _FACTS.validate_python(table)
    return table


def plain(value: Any, depth: int = 0) -> Any:
    """The value, if it is what JSON can hold: finite numbers that fit, text of whole characters, not nested forever."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            plain(key, depth + 1)
            plain(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            plain(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise ValueError("a whole number of more than 64 bits")
    return value


# settings of a stage, or facts without a name that is known here
Open = Annotated[dict[str, Any], AfterValidator(plain)]
Described = Annotated[dict[str, Any], AfterValidator(plain), AfterValidator(_typed)]
