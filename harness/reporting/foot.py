"""What stands below a table: how its models were made and measured, on what, when, and what to be wary of."""

import re
from collections.abc import Iterable, Sequence

from harness.plan import registry
from harness.plan.bench_settings import ESTIMATOR
from harness.plan.cpu_table import Cpu
from harness.plan.planning import Plan, Table
from harness.plan.settings import Recipe
from harness.plan.specs import JointObjective, Student, Teacher
from harness.reporting.escaping import escaped, one_line
from harness.reporting.guard import footnotes
from harness.reporting.machine import bench_machine, shown_cpu, target_differences
from harness.reporting.rows import Row, width_text
from harness.reporting.tables import BEST, over_seeds
from harness.store.records import LatencyRecord, Record

# Characters of a message that is given as a warning.
LONGEST = 400


def network_line(plan: Plan) -> str:
    """Profile, network and data."""
    teacher = plan.teacher.teacher
    network, data = teacher.network, teacher.data
    width = "full width" if network.width == 1 else f"{width_text(network.width)} width"
    dataset, asked = registry.find("dataset", plan.dataset), registry.find("dataset", plan.settings.data.dataset)
    name = dataset.title[:1].upper() + dataset.title[1:] + ("" if dataset == asked else f", not {asked.title}")
    images = "all" if data.train_images == dataset.constants.get("TRAIN_IMAGES") else "the first"
    return (
        f"Profile {plan.profile}: {plan.teacher.title} at {width}, {network.stem} stem, {data.image_size} px. "
        f"{name}, {images} {data.train_images:,} training images."
    )


def recipe_line(plan: Plan, table: Table) -> str:
    """How long the models were trained, and by which protocol."""
    lengths = dict.fromkeys(_length(cell.trained) for cell in table.cells[1:])
    students = f", students {' or '.join(lengths)}" if lengths else ""
    return f"Teacher {_length(plan.teacher.teacher)}{students}. Protocol {table.protocol}."


def _length(stage: Teacher | Student) -> str:
    if stage.recipe is None:
        return "from a given checkpoint"
    if isinstance(stage, Teacher):
        return _epochs(stage.recipe.epochs) + _sizes(stage.recipe, stage)
    whole = isinstance(stage.objective, JointObjective)
    epochs = stage.recipe.epochs * (stage.objective.stages if isinstance(stage.objective, JointObjective) else 1)
    first = stage.lineage[0]
    assert isinstance(first, Teacher)
    return _epochs(epochs) + ("" if whole else " per stage") + _sizes(stage.recipe, first)


def _sizes(recipe: Recipe, teacher: Teacher) -> str:
    """The sizes of training images, where they are not those that the model is for."""
    sizes = dict.fromkeys(recipe.image_sizes)
    return "" if list(sizes) == [teacher.data.image_size] else f" at {', '.join(map(str, sizes))} px"


def measured_lines(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Where, when and with what the rows were trained and measured; a line each, none where nothing was done yet."""
    lines = []
    trained = [row.train for row in rows if row.train]
    if trained:
        torch = " and ".join(_values(trained, "torch"))
        devices = sorted({f"{_fact(row.train, 'device')} ({row.cell.trained.precision})" for row in rows if row.train})
        lines.append(
            f"Trained on {', '.join(devices)}, torch {torch}, {_dates(trained)}, harness {_revisions(trained)}."
        )
    benched = [row.latency for row in rows if row.latency]
    if benched:
        lines.append(f"{_measured_on(benched)} {_compared(benched, plan.settings.bench.target.cpu)}")
        counts = [len(record.processes) for record in benched]
        lines.append(f"Processes per model: {_range(counts)}.{_control(rows)}")
    return lines


def _measured_on(benched: Sequence[LatencyRecord]) -> str:
    machines = "; ".join(sorted({bench_machine(record.environment) for record in benched}))
    runtimes = ", ".join(sorted({record.runtime for record in benched}))
    threads = ", ".join(sorted({f"{record.threads} thread{'' if record.threads == 1 else 's'}" for record in benched}))
    return f"Measured on {machines}, {runtimes}, {threads}, batch 1, {_dates(benched)}, harness {_revisions(benched)}."


def in_short(plan: Plan, rows: Sequence[Row]) -> str:
    """What stands below a short table: what was measured on what, and that there is more to know."""
    benched = [row.latency for row in rows if row.latency]
    count = len(warnings(rows))
    facts = [
        network_line(plan),
        stands_for(plan, rows),
        _measured_on(benched) if benched else "Nothing has been measured yet.",
        "In parentheses: latency divided by the teacher's, and accuracy minus the teacher's in points, with their 95 % "
        "intervals; ≈ where no difference was shown.",
        f"{BEST}: the best for its latency, since no model that is as fast is as accurate.",
        "Students differ in more than their methods: the full table has the footnotes." if footnotes(rows) else "",
        f"The table has {count} warning{'' if count == 1 else 's'}." if count else "",
    ]
    return " ".join(fact for fact in facts if fact)


def stands_for(plan: Plan, rows: Sequence[Row]) -> str:
    """What the figures of a table stand for, in a line; empty where there are none."""
    first = next((row.latency for row in rows if row.latency), None)
    if first is None:
        return ""
    if cpu := shown_cpu(first):
        return f"Instruction set: the {cpu.title}'s. Cores, caches and clock: the measuring machine's."
    target, obstacle = plan.settings.bench.target.cpu, first.environment.get("isa_obstacle")
    why = f" ({obstacle})" if obstacle else ""
    return f"Instruction set, cores, caches and clock: the measuring machine's, not the {target.title}'s{why}."


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _control(rows: Sequence[Row]) -> str:
    """The A/A control: the teacher measured twice in the same run."""
    teacher = next((row.latency for row in rows if row.cell.is_teacher and row.latency), None)
    if teacher is None or teacher.control_ratio is None:
        return ""
    return f" Control, the teacher measured against itself: {teacher.control_ratio.text('.3f')}."


def how_to_read(rows: Sequence[Row]) -> list[str]:
    """What the columns mean."""
    images = sorted({row.accuracy.images for row in rows if row.accuracy and row.accuracy.images})
    counted = f"Accuracy: of the ONNX file, on {', '.join(f'{count:,}' for count in images)} test images. "
    return [
        f"{counted if images else ''}Latency: that of an undisturbed core, the {ESTIMATOR}. Latency ratio: "
        "latency divided by the teacher's in the same bench run, with its 95 % interval; ≈ where no difference was "
        "shown.",
        _differences(rows),
        f"Pareto: 1 ({BEST}) where no other model is at least as fast and as accurate, so that the model is the best "
        "for its latency; 2 where that holds once those of rank 1 are left out, and so on. Estimates decide, not their "
        "intervals.",
        "MACs ratio: multiply-adds divided by the teacher's.",
    ]


def _differences(rows: Sequence[Row]) -> str:
    """What the columns that compare accuracies mean."""
    if not any(row.predictions for row in rows):
        return "Δ accuracy: accuracy minus the teacher's; without an interval, since no answers are on record."
    sample = "test images, and of a mean over seeds and test images" if over_seeds(rows) else "test images"
    return (
        f"Δ accuracy: accuracy minus the teacher's, with its paired 95 % interval over {sample}; ≈ where no "
        "difference was shown. Rank: one more than the number of students that were shown to be more accurate (95 % "
        "for all pairs together), so rows of one rank are in no proven order."
    )


def footnote_lines(rows: Sequence[Row]) -> list[str]:
    """The footnotes of a table as sentences, and what they mean for its reader; none where all was made alike."""
    found = [f"{one.sign} {one.text[:1].upper()}{one.text[1:]}." for one in footnotes(rows)]
    told = "Rows with different footnotes were not made on equal terms: their accuracies compare more than methods."
    return [*found, told] if found else []


def warnings(rows: Sequence[Row]) -> list[str]:
    """Why rows have no figures or fail a check, what to be wary of in others, and what the bench said about rows."""
    said: dict[str, list[str]] = {}
    for row in rows:
        ours = [one.detail for one in (*row.problems, *row.cautions)]
        for text in [*ours, *(row.latency.warnings if row.latency else [])]:
            said.setdefault(one_line(text, LONGEST), []).append(row.cell.title)
    return [f"{'all rows' if len(titles) == len(rows) else ', '.join(titles)}: {text}" for text, titles in said.items()]


def foot(plan: Plan, table: Table, rows: Sequence[Row]) -> str:
    """All of it as a Markdown list, warnings and footnotes first."""
    facts = [f"{network_line(plan)} {recipe_line(plan, table)}", *measured_lines(plan, rows), *how_to_read(rows)]
    items = [f"**Warning:** {escaped(text)}" for text in warnings(rows)]
    items += [escaped(line) for line in (*footnote_lines(rows), *facts)]
    return "\n".join(f"- {item}" for item in items)


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _compared(records: Sequence[LatencyRecord], target: Cpu) -> str:
    # Rows from several machines fail a check, which is a warning of its own; the first stands for them here.
    differences = target_differences(records[0].environment, target, shown_cpu(records[0]) is not None)
    return f"Not the target, {target.title}: {', '.join(differences)}." if differences else "This is the target."


def _fact(record: Record, key: str) -> str:
    return str(record.environment.get(key, "unknown"))


def _values(records: Iterable[Record], key: str) -> list[str]:
    return sorted({_fact(record, key) for record in records})


def _revisions(records: Iterable[Record]) -> str:
    # The first ten digits name a commit well enough; a suffix such as -dirty stays.
    return ", ".join(
        re.sub(r"\b([0-9a-f]{10})[0-9a-f]+", r"\1", value) for value in _values(records, "harness_revision")
    )


def _dates(records: Iterable[Record]) -> str:
    days = sorted(record.finished_at[:10] for record in records)
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
