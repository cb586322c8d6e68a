"""The list of checks, in order, and what running them gives. This is the one place where a check is registered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.checks import agreement, answers, measurement, plausibility, provenance, recomputed
from harness.checks import files_on_disk as files
from harness.checks.evidence import Evidence, read_evidence
from harness.checks.fault import Fault, Find
from harness.plan.planning import Plan
from harness.store.paths import model_file
from harness.store.records import StageName, record_path

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """A named check. Its name is its function's; what it finds is its function's docstring.

    `remedy` is what the user does about it. What follows "run: ", up to the end, is a command for the shell, to be run
    in the checkout as it is printed; after it the check is content, unless the cause is outside the records. Filled in
    are {profile}, {cell}, {export} and {onnx} (the export record's file, the ONNX file), {make} (the verbs that make
    what is missing from the stage on) and {again} (the command that makes the stage again, whatever its state).
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


# A record that does not stand counts as missing, and is made again like one.
MAKE = "run: make {make} PROFILE={profile}"
# One that stands is left alone unless it is asked for.
AGAIN = "run: {again}"
RESTORE = "put the record or file back as it was (from git, or from the machine that made it), or " + AGAIN
MEASURE = "run: make bench AGAIN=1 PROFILE={profile}"
MEASURE_ALIKE = "measure all rows in one place; " + MEASURE
# Sparse and pruned networks, which cells share, are kept on disk as well.
TRAIN_ALIKE = (
    "train all rows alike; run: rm -rf artifacts/{profile}/stages && make train-matrix bench REDO=all PROFILE={profile}"
)
EXPORT = "run: rm {export} && make train-matrix bench PROFILE={profile}"

# From the bottom up: is it there, does it fit, was it measured well, do the rows go together, can it be true?
CHECKS: Sequence[Check] = (
    Check(provenance.unreadable_record, "put the record back (from git, or from the machine that made it), or " + MAKE),
    Check(provenance.missing_record, MAKE),
    Check(provenance.failed_stage, "deal with the reason, then " + MAKE),
    Check(provenance.stale_key, MAKE),
    Check(provenance.wrong_key, RESTORE),
    Check(
        provenance.code_changed,
        "CODE=redo makes it again, CODE=keep in its place declares that the change makes no difference; "
        "run: make {make} CODE=redo PROFILE={profile}",
    ),
    Check(provenance.swapped_models, MAKE),
    Check(provenance.broken_chain, MAKE),
    Check(provenance.changed_file, "run: rm {onnx} && make train-matrix bench PROFILE={profile}"),
    Check(provenance.duplicate_model, AGAIN),
    Check(provenance.other_teacher, MAKE),
    Check(recomputed.false_figure, RESTORE),
    Check(measurement.wrong_runtime, "run: make setup && make bench PROFILE={profile}"),
    Check(
        measurement.wrong_instruction_set, "see docs/target.md; run: make setup && make bench AGAIN=1 PROFILE={profile}"
    ),
    Check(measurement.too_few_samples, MEASURE),
    Check(measurement.wrong_threads, MEASURE),
    Check(measurement.wrong_cpuset, "keep the cpuset as it is during a run; " + MEASURE),
    Check(measurement.repeated_input, "give the bench a test set of many images; " + MEASURE),
    Check(measurement.impossible_latency, MEASURE),
    Check(measurement.throttled_run, "give the container whole cores or a larger CPU quota; " + MEASURE),
    Check(measurement.stolen_run, "wait until the host is quieter; " + MEASURE),
    Check(measurement.open_container, "measure where the engine enforces what it is asked to; " + MEASURE),
    Check(measurement.missing_teacher, "run: make train-matrix bench PROFILE={profile}"),
    Check(measurement.control_off, "raise bench.minutes_per_model or use a quieter machine; " + MEASURE),
    Check(measurement.unusable_interval, "raise bench.minutes_per_model or use a quieter machine; " + MEASURE),
    Check(measurement.wide_interval, "raise bench.minutes_per_model in matrix.toml; " + MEASURE, "warning"),
    Check(agreement.mixed_training, TRAIN_ALIKE, "warning"),
    Check(agreement.mixed_machines, MEASURE_ALIKE),
    Check(agreement.mixed_images, MEASURE_ALIKE),
    Check(agreement.mixed_runs, MEASURE),
    Check(agreement.mixed_test_images, MEASURE_ALIKE),
    Check(agreement.mixed_accuracy_machines, MEASURE_ALIKE, "warning"),
    Check(
        plausibility.pruned_otherwise,
        "set prune_amount or pruning.round_to lower in matrix.toml: a large multiple may spare or empty a layer",
        "warning",
    ),
    Check(plausibility.denormal_weights, "today's exporter sets weights below 1e-20 to zero; " + EXPORT),
    Check(plausibility.parity_lost, EXPORT),
    Check(plausibility.impossible_accuracy, MEASURE),
    Check(answers.other_predictions, RESTORE),
    Check(
        plausibility.chance_accuracy,
        "train for longer or with a lower rate (matrix.toml), then " + "run: make train-matrix bench PROFILE={profile}",
    ),
    Check(
        plausibility.differs_from_torch,
        "if it recurs, the test set or the exported file is not the trained model's; " + MEASURE,
    ),
    Check(plausibility.other_answers, "if it recurs, the exported file is not the trained model's; " + MEASURE),
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
    Check(recomputed.false_interval, RESTORE),
    Check(files.changed_weights, "unpack them again, or " + AGAIN),
    Check(files.other_model, RESTORE),
    Check(answers.other_labels, RESTORE),
    Check(answers.changed_answers, RESTORE),
    Check(answers.other_torch_figures, RESTORE),
    Check(files.other_history, RESTORE),
    Check(files.other_samples, RESTORE),
)


def run_checks(evidence: Evidence, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Every check's findings, in the order of the list and, within a check, of the plan."""
    return [as_finding(evidence.plan, check, fault) for check, fault in faults(evidence, checks)]


def faults(evidence: Evidence, checks: Sequence[Check] = CHECKS) -> Iterator[tuple[Check, Fault]]:
    """What each check finds, in the same order, with the check."""
    return ((check, fault) for check in checks for fault in check.find(evidence))


def check_results(plan: Plan, results: Path, artifacts: Path | None = None) -> list[Finding]:
    """The findings about what is on disk. Without `artifacts` the records alone are looked at."""
    return run_checks(read_evidence(plan, results, artifacts))


def errors(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings that make a row fail."""
    return (finding for finding in findings if finding.severity == "error")


def as_finding(plan: Plan, check: Check, fault: Fault) -> Finding:
    """A fault with the check's name and severity, and with what to do about it."""
    cell, stage = fault.entry.cell, fault.stage
    export = record_path(Path("results"), plan.profile, "export", cell.id)
    again = {
        "train": f"make train-matrix bench REDO={cell.id} PROFILE={plan.profile}",
        "export": EXPORT.removeprefix("run: ").format(export=export, profile=plan.profile),
    }
    return Finding(
        check=check.name,
        severity=check.severity,
        cell=cell.id,
        title=cell.title,
        stage=stage,
        reason=fault.reason,
        remedy=check.remedy.format(
            profile=plan.profile,
            cell=cell.id,
            export=export,
            onnx=model_file(Path("artifacts"), plan.profile, cell),
            make="train-matrix bench" if stage in again else "bench",
            again=again.get(stage, MEASURE.removeprefix("run: ").format(profile=plan.profile)),
        ),
    )
