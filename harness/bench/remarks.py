"""What an engine prints about a model, such as ONNX Runtime's warnings, in a form that a person reads."""

import re
from collections.abc import Sequence

ANSI = re.compile(r"\x1b\[[0-9;]*m")
TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,\d]* ")
# "[W:onnxruntime:, graph.cc:1283 Graph]": severity, logger, and the place in the engine's source that says it
PLACE = re.compile(r"^\[\w:[^]]*\] ?")
# The library that shows another instruction set says what it did (harness/host/isa/cpuid.c): evidence, and no warning.
OURS = "harness cpuid: "


def lines(printed: str) -> list[str]:
    """The distinct lines of what an engine has printed, without colours and times of day, which differ every time."""
    bare = (TIME.sub("", ANSI.sub("", line)).strip() for line in printed.splitlines())
    return list(dict.fromkeys(line for line in bare if line and not line.startswith(OURS)))


def remarks(said: Sequence[str]) -> list[str]:
    """One sentence for each kind of line: the first one, and how many more are like it.

    Lines are of a kind where the engine says them in the same place of its source, as it does once for every weight.
    """
    kinds: dict[str, list[str]] = {}
    for line in said:
        place = PLACE.match(line)
        kinds.setdefault(place[0] if place else line, []).append(line[place.end() :] if place else line)
    return [first + (f" (and {len(more)} more like it)" if more else "") for first, *more in kinds.values()]
