"""What stands below a table: how its models were made and measured, on what, when, and what to be wary of."""

import re
from collections.abc import Iterable, Sequence

from harness.intervals import ESTIMATOR
from harness.plan.planning import Plan, Table
from harness.plan.settings import Target
from harness.reporting.machine import bench_machine, target_differences
from harness.reporting.rows import Row, width_text
from harness.store.records import Record

ALL_IMAGES = 50_000


def network_line(plan: Plan) -> str:
    """Profile, network and data."""
    model, data = plan.settings.model, plan.settings.data
    images = f"{'all' if data.train_images == ALL_IMAGES else 'the first'} {data.train_images:,}"
    name = "CIFAR-100" if plan.data == "cifar100" else "Stand-in data, not CIFAR-100"
    width = "full width" if model.width == 1 else f"{width_text(model.width)} width"
    return (
        f"Profile {plan.profile}: ResNet50 at {width}, {model.stem} stem, {data.image_size} px. "
        f"{name}, {images} training images."
    )


def recipe_line(plan: Plan, table: Table) -> str:
    """Recipe length and protocol."""
    settings, protocol = plan.settings, plan.settings.protocol[table.protocol]
    teacher = "from a given checkpoint" if settings.teacher.checkpoint else _epochs(settings.teacher.epochs)
    epochs = settings.student.epochs
    students = f"{_epochs(epochs)} per stage" if protocol.objective == "stages" else _epochs(epochs * protocol.stages)
    return f"Teacher {teacher}, students {students}. Protocol {table.protocol}."


def measured_lines(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Where, when and with what the rows were trained and benched; a line each, none where nothing was done yet."""
    lines = []
    trained = [row.train for row in rows if row.train]
    if trained:
        torch = " and ".join(_values(trained, "torch"))
        devices = ", ".join(f"{device} ({precision})" for device, precision in _pairs(trained, "device", "precision"))
        lines.append(f"Trained on {devices}, torch {torch}, {_dates(trained)}, harness {_revisions(trained)}.")
    benched = [row.latency for row in rows if row.latency]
    if benched:
        machines = "; ".join(sorted({bench_machine(record.environment) for record in benched}))
        runtimes = ", ".join(sorted({record.runtime for record in benched}))
        threads = ", ".join(
            sorted({f"{record.threads} thread{'' if record.threads == 1 else 's'}" for record in benched})
        )
        lines.append(
            f"Benched on {machines}, {runtimes}, {threads}, batch 1, {_dates(benched)}, harness {_revisions(benched)}. "
            f"{_compared(benched, plan.settings.bench.target)}"
        )
        counts = [len(record.processes) for record in benched]
        lines.append(f"Processes per model: {_range(counts)}.{_control(rows)}")
    return lines


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _control(rows: Sequence[Row]) -> str:
    """The A/A control: the teacher measured twice in the same run."""
    teacher = next((row.latency for row in rows if row.cell.is_teacher and row.latency), None)
    if teacher is None or teacher.control_ratio is None:
        return ""
    found = teacher.control_ratio
    return f" Control, the teacher by itself: {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]."


def how_to_read(rows: Sequence[Row]) -> list[str]:
    """The columns that the study does not have."""
    images = sorted({row.accuracy.images for row in rows if row.accuracy and row.accuracy.images})
    counted = (
        f"Accuracy: the ONNX file on {', '.join(f'{count:,}' for count in images)} test images. " if images else ""
    )
    return [
        f"{counted}Latency: of an undisturbed core ({ESTIMATOR}). Latency ratio: latency by the teacher's, from one "
        "bench run, with its 95 % interval; ≈ where it shows no difference.",
        "MACs ratio: multiply-adds by the teacher's.",
        "Study: as published for ckdghk77/Network-Compression-Gram (full width, 224 px, i9-9900K); "
        "its latency ratios follow from its latencies.",
    ]


def warnings(rows: Sequence[Row]) -> list[str]:
    """Rows without figures and why, rows that fail a check, and what the bench said about rows."""
    said: dict[str, list[str]] = {}
    for row in rows:
        from_bench = row.latency.warnings if row.latency else []
        for text in [*(problem.detail for problem in row.problems), *from_bench]:
            said.setdefault(one_line(text), []).append(row.cell.title)
    return [f"{'all rows' if len(titles) == len(rows) else ', '.join(titles)}: {text}" for text, titles in said.items()]


def foot(plan: Plan, table: Table, rows: Sequence[Row]) -> str:
    """All of it as a Markdown list, warnings first."""
    facts = [f"{network_line(plan)} {recipe_line(plan, table)}", *measured_lines(plan, rows), *how_to_read(rows)]
    # Messages come from elsewhere: what looks like a tag or a comment must not become one.
    items = [f"**Warning:** {text}" for text in warnings(rows)] + facts
    return "\n".join(f"- {item.replace('<', '&lt;')}" for item in items)


def one_line(text: str, limit: int = 400) -> str:
    """A message of any shape as one line of at most `limit` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _compared(records: Sequence[Record], target: Target) -> str:
    # Rows from several machines fail a check, which is a warning of its own; the first stands for them here.
    differences = target_differences(records[0].environment, target)
    return f"Not the target, {target.name}: {', '.join(differences)}." if differences else "This is the target."


def _values(records: Iterable[Record], key: str) -> list[str]:
    return sorted({str(record.environment.get(key, "unknown")) for record in records})


def _pairs(records: Iterable[Record], first: str, second: str) -> list[tuple[str, str]]:
    found = {
        (record.environment.get(first, "unknown"), record.environment.get(second, "unknown")) for record in records
    }
    return sorted((str(one), str(two)) for one, two in found)


def _revisions(records: Iterable[Record]) -> str:
    # The first ten digits name a commit well enough; a suffix such as -dirty stays.
    return ", ".join(
        re.sub(r"\b([0-9a-f]{10})[0-9a-f]+", r"\1", value) for value in _values(records, "harness_revision")
    )


def _dates(records: Iterable[Record]) -> str:
    days = sorted(record.finished_at[:10] for record in records)
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
