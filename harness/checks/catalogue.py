"""The list of checks, in order, and what running them gives. This is the one place where a check is registered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.checks import agreement, answers, measurement, plausibility
from harness.checks import files_on_disk as files
from harness.checks import provenance as chain
from harness.checks.evidence import Evidence, read_evidence
from harness.checks.fault import Fault, Find
from harness.plan.planning import Plan
from harness.store.records import StageName, record_path

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """A named check. Its name is its function's; what it finds is its function's docstring.

    `remedy` is what the user does about it. Filled in are {profile}, {cell}, {stage}, {record} (the record's file),
    {verb} (the make target that writes it), and {train} and {export}, the files of the cell's train and export records.
    """

    find: Find
    remedy: str
    severity: Severity = "error"

    @property
    def name(self) -> str:
        """As it is printed: wrong-runtime."""
        return self.find.__name__.replace("_", "-")

    @property
    def finds(self) -> str:
        """What it finds, in one sentence."""
        return " ".join((self.find.__doc__ or "").split())


@dataclass(frozen=True)
class Finding:
    """What a check found in one row."""

    check: str
    severity: Severity
    cell: str
    title: str
    stage: StageName
    reason: str
    remedy: str


MAKE_AGAIN = "make {verb} PROFILE={profile}"
DELETE = "delete {record}, then: " + MAKE_AGAIN
# The bench leaves alone what looks up to date, so records that are to be measured again have to be deleted first.
MEASURE_ALL = "delete results/{profile}/latency, then: make bench PROFILE={profile}"
MEASURE_ALIKE = "delete results/{profile}/{stage}, then measure all rows in one place: make bench PROFILE={profile}"
# Sparse and pruned networks, which cells share, are kept on disk as well.
TRAIN_ALIKE = (
    "delete results/{profile}/train and artifacts/{profile}/stages, then train all rows alike: "
    "make train-matrix bench PROFILE={profile}"
)
TRAIN_AGAIN = "delete {train}, then: make train-matrix bench PROFILE={profile}"
EXPORT_AGAIN = "delete {export}, then: make train-matrix bench PROFILE={profile}"

# From the bottom up: is it there, does it fit, was it measured well, do the rows go together, can it be true?
CHECKS: Sequence[Check] = (
    Check(chain.unreadable_record, DELETE),
    Check(chain.missing_record, MAKE_AGAIN),
    Check(chain.failed_stage, "deal with the reason, then: " + MAKE_AGAIN),
    Check(chain.stale_key, MAKE_AGAIN),
    Check(chain.wrong_key, "delete {record}, then: make train-matrix bench PROFILE={profile}"),
    Check(
        chain.code_changed,
        "make {verb} CODE=redo PROFILE={profile} makes it again; CODE=keep in its place declares that the change "
        "makes no difference",
    ),
    Check(chain.swapped_models, DELETE),
    Check(chain.broken_chain, DELETE),
    Check(chain.changed_file, "delete that ONNX file, then: make train-matrix bench PROFILE={profile}"),
    Check(chain.duplicate_model, TRAIN_AGAIN),
    Check(chain.other_teacher, TRAIN_AGAIN),
    Check(measurement.wrong_runtime, "make the pinned environment with make setup; " + DELETE),
    Check(measurement.wrong_instruction_set, "see docs/target.md; " + DELETE),
    Check(measurement.too_few_samples, "raise bench.blocks or bench.rounds in matrix.toml; " + MEASURE_ALL),
    Check(measurement.wrong_threads, "set bench.threads in matrix.toml; " + MEASURE_ALL),
    Check(measurement.wrong_cpuset, "keep the cpuset as it is during a run; " + MEASURE_ALL),
    Check(measurement.repeated_input, "give the bench a test set of many images; " + MEASURE_ALL),
    Check(measurement.impossible_latency, MEASURE_ALL),
    Check(measurement.throttled_run, "give the container whole cores or a larger CPU quota; " + MEASURE_ALL),
    Check(measurement.stolen_run, "wait until the host is quieter; " + MEASURE_ALL),
    Check(measurement.open_container, "measure where the engine enforces what it is asked to; " + MEASURE_ALIKE),
    Check(measurement.missing_teacher, "make sure that the teacher is exported; " + MEASURE_ALL),
    Check(measurement.control_off, "raise bench.minutes_per_model or use a quieter machine; " + MEASURE_ALL),
    Check(measurement.unusable_interval, "raise bench.minutes_per_model or use a quieter machine; " + MEASURE_ALL),
    Check(
        measurement.wide_interval,
        "raise bench.minutes_per_model in matrix.toml, then: make bench PROFILE={profile}",
        "warning",
    ),
    Check(agreement.mixed_training, TRAIN_ALIKE, "warning"),
    Check(agreement.mixed_machines, MEASURE_ALIKE),
    Check(agreement.mixed_images, MEASURE_ALIKE),
    Check(agreement.mixed_runs, MEASURE_ALL),
    Check(agreement.mixed_test_images, MEASURE_ALIKE),
    Check(agreement.mixed_accuracy_machines, MEASURE_ALIKE, "warning"),
    Check(
        plausibility.pruned_otherwise,
        "set prune_amount or pruning.round_to lower in matrix.toml: a large multiple may spare or empty a layer",
        "warning",
    ),
    Check(
        plausibility.denormal_weights,
        EXPORT_AGAIN + " (today's exporter sets weights below 1e-20 to zero)",
    ),
    Check(plausibility.parity_lost, EXPORT_AGAIN),
    Check(plausibility.impossible_accuracy, DELETE),
    Check(answers.other_predictions, DELETE),
    Check(
        plausibility.chance_accuracy,
        "train for longer or with a lower rate (matrix.toml), then: make train-matrix bench PROFILE={profile}",
    ),
    Check(
        plausibility.differs_from_torch,
        DELETE + "; if it recurs, the test set or the exported file is not the trained model's",
    ),
    Check(plausibility.other_answers, DELETE + "; if it recurs, the exported file is not the trained model's"),
    Check(
        plausibility.above_teacher,
        "look at the teacher's training: its recipe may be too short for a teacher",
        "warning",
    ),
    Check(
        plausibility.slower_than_teacher,
        "look at pruning.round_to: channel counts off the vector width fall out of the fast layout",
        "warning",
    ),
)


# The checks that `verify` runs: all of these, and some more.
STRICT: Sequence[Check] = (
    *CHECKS,
    Check(files.changed_weights, "delete that weights.safetensors, then unpack it again or train the model again"),
    Check(answers.other_labels, DELETE),
    Check(answers.changed_answers, "delete that answers.npy, then unpack it again, or bench without torch's answers"),
    Check(answers.other_torch_figures, "delete {record}, then: make train-matrix bench PROFILE={profile}"),
    Check(files.other_history, MEASURE_ALL),
    Check(files.other_samples, MEASURE_ALL),
)


def run_checks(evidence: Evidence, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Every check's findings, in the order of the list and, within a check, of the plan."""
    return [_finding(evidence.plan, check, fault) for check in checks for fault in check.find(evidence)]


def check_results(plan: Plan, results: Path, artifacts: Path | None = None) -> list[Finding]:
    """The findings about what is on disk. Without `artifacts` the records alone are looked at."""
    return run_checks(read_evidence(plan, results, artifacts))


def errors(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings that make a row fail."""
    return (finding for finding in findings if finding.severity == "error")


def _finding(plan: Plan, check: Check, fault: Fault) -> Finding:
    cell = fault.entry.cell
    condition = fault.condition or plan.settings.bench.conditions[0]

    def place(stage: StageName) -> Path:
        name = cell.model_id if stage == "train" else cell.id
        return record_path(Path("results"), plan.profile, stage, name, condition if stage == "latency" else "")

    return Finding(
        check=check.name,
        severity=check.severity,
        cell=cell.id,
        title=cell.title,
        stage=fault.stage,
        reason=fault.reason,
        remedy=check.remedy.format(
            profile=plan.profile,
            cell=cell.id,
            stage=fault.stage,
            record=place(fault.stage),
            train=place("train"),
            export=place("export"),
            verb="train-matrix" if fault.stage in ("train", "export") else "bench",
        ),
    )
