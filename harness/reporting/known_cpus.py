"""The CPUs of cpus.toml as a table for docs/target.md."""

from collections.abc import Callable

from harness.plan.cpu_table import TABLE, Cpu, cpus
from harness.reporting.escaping import escaped
from harness.reporting.tables import Column, markdown

# What a marker has in the profile's place: <!-- table: cpus all -->
CPUS = "cpus"


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
