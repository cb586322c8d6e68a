"""The documents with tables between markers: README.md and docs/*.md, filled in and checked in one way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import HarnessError
from harness.reporting.known_cpus import CPUS, cpus_table
from harness.reporting.markers import Marker, fill, find_markers, read_document
from harness.reporting.own_figures import BENCHMARKS, figures_table

# A study among the benchmarks fills its tables itself: they are made from samples, and not from what is on record.
STUDIES = "studies"
# What a marker may have in the profile's place.
WITHOUT_PLAN = (BENCHMARKS, CPUS, STUDIES)


@dataclass(frozen=True)
class Filled:
    """A document, its text as it should be, and the markers whose tables differ from that."""

    path: Path
    text: str
    stale: list[Marker]


def own_documents(folder: Path) -> list[Path]:
    """A checkout's README and the pages of its docs/; none where there is no README."""
    readme = folder / "README.md"
    return [readme, *sorted((folder / "docs").glob("*.md"))] if readme.is_file() else []


def filled(
    documents: Sequence[Path], results: Path, matrix_table: Callable[[Marker, Path], str | None]
) -> list[Filled]:
    """Every document that has markers, as it should be. Writes nothing.

    `matrix_table` gives the table of a profile's experiment for a document that lies in the folder, or None to leave
    what is there. HarnessError names the document and the line of a marker that cannot be filled.
    """

    def table(marker: Marker, folder: Path) -> str | None:
        if marker.profile not in WITHOUT_PLAN:
            return matrix_table(marker, folder)
        if marker.short:
            raise HarnessError(f"a table of {marker.profile} has no short form")
        if marker.profile == CPUS:
            return cpus_table()
        # another results folder may hold a matrix's records alone
        measured = marker.profile == BENCHMARKS and (results / BENCHMARKS).is_dir()
        return figures_table(results, marker.experiment) if measured else None

    texts = {document: read_document(document) for document in documents}
    return [
        Filled(document, *fill(text, str(document), partial(table, folder=document.parent)))
        for document, text in texts.items()
        if find_markers(text, str(document))
    ]
