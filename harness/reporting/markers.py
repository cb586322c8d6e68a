"""Tables between markers in a document, written in place and checked for staleness, as cog does.

<!-- table: PROFILE EXPERIMENT -->
(filled by the harness)
<!-- end -->

`<!-- table: PROFILE EXPERIMENT short -->` asks for the columns that a first look needs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.files import read_text

END = "<!-- end -->"
SHORT = "short"
MARKER = re.compile(r"<!--\s*table:(?P<what>.*?)-->")


@dataclass(frozen=True)
class Marker:
    """A place for one table. `line` is the marker's, from 1; `start` and `end` bound the lines between, from 0."""

    profile: str
    experiment: str
    short: bool
    line: int
    start: int
    end: int


def find_markers(text: str, name: str) -> list[Marker]:
    """All markers of a document, in order. HarnessError names the document and the line of one that is malformed."""
    lines = text.split("\n")
    markers: list[Marker] = []
    fenced = False
    for index, line in enumerate(lines):
        # A document may show what a marker looks like.
        fenced ^= line.startswith("```")
        found = None if fenced else MARKER.fullmatch(line.strip())
        if found is None:
            continue
        where = f"{name}:{index + 1}"
        words = found["what"].split()
        if len(words) < 2 or words[2:] not in ([], [SHORT]):
            raise HarnessError(
                f"{where}: a marker names a profile and an experiment, and may ask for a short table: "
                f"<!-- table: lite prune-0.3 {SHORT} -->"
            )
        end = next((later for later in range(index + 1, len(lines)) if lines[later].strip() == END), None)
        if end is None or any(MARKER.fullmatch(between.strip()) for between in lines[index + 1 : end]):
            raise HarnessError(f"{where}: the table has no end; close it with a line {END}")
        markers.append(Marker(words[0], words[1], words[2:] == [SHORT], line=index + 1, start=index + 1, end=end))
    return markers


def fill(text: str, name: str, render: Callable[[Marker], str | None]) -> tuple[str, list[Marker]]:
    """The document with every table that `render` gives, and the markers whose text changed. None leaves one as it is.

    A HarnessError from `render` gets the document's name and the marker's line in front.
    """
    lines = text.split("\n")
    changed: list[Marker] = []
    # From the end, so that the lines of earlier markers stay where they are.
    for marker in reversed(find_markers(text, name)):
        try:
            table = render(marker)
        except HarnessError as error:
            raise HarnessError(f"{name}:{marker.line}: {error}") from error
        if table is None:
            continue
        wanted = ["", *table.strip("\n").split("\n"), ""]
        if lines[marker.start : marker.end] != wanted:
            changed.insert(0, marker)
            lines[marker.start : marker.end] = wanted
    return "\n".join(lines), changed


def read_document(path: Path) -> str:
    """A document's text; HarnessError where there is none."""
    return read_text(path, "not found; run from the project's folder")
