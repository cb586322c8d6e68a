"""What every table of matrix.toml has in common: how it is checked, and kinds of numbers."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table of matrix.toml: unknown keys are refused, values are not coerced, and nothing changes afterwards."""

    # built when first used: a process of the bench imports all that inherit this, and uses few
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


# what 64 bits hold: nothing is counted beyond
Count = Annotated[int, Field(ge=1, lt=2**63)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def distinct(values: list[Any]) -> list[Any]:
    """The values; ValueError where one is named twice."""
    try:
        twice = len(set(values)) < len(values)
    except TypeError:  # of lists and tables there are few
        twice = any(value in values[:place] for place, value in enumerate(values))
    if twice:
        raise ValueError("a value is named twice")
    return values
