"""Open tables of a record: what a machine, an engine or a plug-in says of itself, under names of its own.

Records come from elsewhere too (merge), so nothing in such a table is taken on trust. Facts that the harness computes
with have the type that it writes; of the others only what JSON can hold is asked.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from harness.files import canonical

Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0, lt=2**63)]


class Facts(TypedDict, total=False):
    """Facts that figures, tables or checks are made from; each may be missing or null."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    run: str | None
    cpu: str | None
    image: str | None
    device: str | None
    isa: list[str] | None
    isa_obstacle: str | None
    physical_cores: Number | None
    measured_cpus: list[Number] | None
    caches_kib: dict[str, Finite] | None
    steal_pct: Finite | None
    nr_throttled: Finite | None
    virtualised: bool | None
    enclosure: dict[str, Any] | None
    session: dict[str, Any] | None
    harness_revision: str | None
    # of an engine's options
    intra_op_num_threads: Number | None


_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)


def _typed(table: dict[str, Any]) -> dict[str, Any]:
    _FACTS.validate_python(table)
    return table


def plain(table: dict[str, Any]) -> dict[str, Any]:
    """The table, if it is what JSON can hold; ValueError where a number is none, or has thousands of digits."""
    canonical(table)
    return table


# settings of a stage, or facts without a name that is known here
Open = Annotated[dict[str, Any], AfterValidator(plain)]
Described = Annotated[dict[str, Any], AfterValidator(plain), AfterValidator(_typed)]
