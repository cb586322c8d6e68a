"""docs/target.md: its table of CPUs, from cpus.toml, and its figures, from results/benchmarks."""

from collections.abc import Callable
from pathlib import Path

from harness.plan.cpu_table import TABLE, Cpu, cpus
from harness.reporting.escaping import escaped
from harness.reporting.own_figures import MARKER_PROFILE, figures_table
from harness.reporting.readme import Marker, fill, read_document
from harness.reporting.tables import Column, markdown

# Where it lies, beside the README.
DOCUMENT = "docs/target.md"
# What its marker has in the profile's place: <!-- table: cpus all -->
CPUS = "cpus"


def filled(document: Path, results: Path) -> tuple[str, list[Marker]]:
    """The document as it should be, and the markers whose text differs. Figures not yet measured stay as they are."""

    def table_of(marker: Marker) -> str | None:
        if marker.profile == CPUS:
            return cpus_table()
        measured = (results / MARKER_PROFILE / f"{marker.experiment}.json").is_file()
        return figures_table(results, marker.experiment) if marker.profile == MARKER_PROFILE and measured else None

    return fill(read_document(document), document.name, table_of)


def cpus_table() -> str:
    """The CPUs that a bench can stand in for, each with the features that it adds to those of one above it."""
    known = list(cpus().values())
    first = known[0].features

    def column(header: str, text: Callable[[Cpu], str], figures: bool = False, markup: bool = False) -> Column:
        return Column(header, [text(cpu) for cpu in known], figures=figures, markup=markup)

    def features(cpu: Cpu) -> str:
        above = [other for other in known[: known.index(cpu)] if other.features <= cpu.features]
        if not above:
            return "see below"
        most = max(above, key=lambda other: len(other.features))
        return ", ".join([f"those of {most.name}", *sorted(cpu.features - most.features)])

    table = [
        column("Name", lambda cpu: f"`{cpu.name}`", markup=True),
        column("CPU", lambda cpu: cpu.title),
        column("Vector instructions", lambda cpu: cpu.vectors.words),
        column("Channels per block", lambda cpu: str(cpu.vectors.channels), figures=True),
        column("Features", features),
        column("Cores", lambda cpu: str(cpu.physical_cores), figures=True),
        column("L3 (MiB)", lambda cpu: f"{cpu.l3_mib:g}", figures=True),
        column("Base clock (GHz)", lambda cpu: f"{cpu.base_ghz:g}", figures=True),
    ]
    said = f"The {known[0].title} has, of what kernels are chosen by: {', '.join(sorted(first))}."
    return f"{markdown(table)}\n\n{escaped(said)} Source: `harness/plan/{TABLE.name}`."
