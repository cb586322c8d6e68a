"""Do the accuracies follow from the answers that the models gave?

What harness.predictions keeps beside each accuracy record is enough to count the right answers again, in every
checkout. Where this machine also has the test set or torch's answers, the strict checks compare with those as well.
"""

import hashlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness import predictions
from harness.checks.evidence import Entry, Evidence
from harness.checks.fault import Fault
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.predictions import Classes, Predictions
from harness.store.chain import short
from harness.store.paths import Paths, answers_file, weights_file
from harness.store.records import AccuracyRecord


def other_predictions(evidence: Evidence) -> Iterator[Fault]:
    """Predictions that are missing, are not those on record, or do not give the accuracy on record."""
    for entry, record in evidence.accuracies():
        try:
            found = _predictions(evidence, record)
        except HarnessError as error:
            yield Fault(entry, "accuracy", str(error))
            continue
        if found and (correct := int(found.right.sum())) != record.correct:
            reason = f"{correct} of {len(found.right)} predictions are right, the record says {record.correct}"
            yield Fault(entry, "accuracy", reason)


def other_labels(evidence: Evidence) -> Iterator[Fault]:
    """Labels on record that are not those of the test set on this machine."""
    labels = _labels_here(evidence)
    if labels is None:
        return
    found = hashlib.sha256(predictions.encoded(labels)).hexdigest()
    for entry, record in evidence.accuracies():
        if record.labels_sha256 and record.labels_sha256 != found:
            reason = f"the test set here has labels {short(found)}, the record's are {short(record.labels_sha256)}"
            yield Fault(entry, "accuracy", reason)


def changed_answers(evidence: Evidence) -> Iterator[Fault]:
    """Torch's answers on this machine that are not those on record."""
    for entry, path in _answer_files(evidence):
        expected = entry.train.answers_sha256 if entry.train else None
        if expected and (found := file_sha256(path)) != expected:
            reason = f"answers.npy has sha256 {short(found)}; the train record says {short(expected)}"
            yield Fault(entry, "train", reason)


def other_torch_figures(evidence: Evidence) -> Iterator[Fault]:
    """Torch's accuracy, or the agreement with torch, that does not follow from torch's answers."""
    for entry, path in _answer_files(evidence):
        train, record = entry.train, entry.accuracy
        try:
            ours = _predictions(evidence, record) if record else None
            torchs = predictions.load_classes(path)
        except HarnessError:
            # which the checks above name
            continue
        if not train or not record or not ours or torchs.shape != ours.labels.shape:
            continue
        # Answers that are not torch's say nothing about its figures.
        if train.answers_sha256 not in (None, file_sha256(path)):
            continue
        accuracy, agreement = 100 * float((torchs == ours.labels).mean()), 100 * float((torchs == ours.given).mean())
        if train.accuracy_pct is not None and not math.isclose(train.accuracy_pct, accuracy, abs_tol=1e-6):
            said = f"the record says {train.accuracy_pct:.2f} %"
            reason = f"torch's answers are right for {accuracy:.2f} % of the images, {said}"
            yield Fault(entry, "train", reason)
        if record.agreement_pct is not None and not math.isclose(record.agreement_pct, agreement, abs_tol=1e-6):
            said = f"the record says {record.agreement_pct:.2f} %"
            reason = f"the predictions are torch's answers for {agreement:.2f} % of the images, {said}"
            yield Fault(entry, "accuracy", reason)


def _predictions(evidence: Evidence, record: AccuracyRecord) -> Predictions | None:
    return predictions.read(evidence.results / record.profile, record) if evidence.results else None


def _labels_here(evidence: Evidence) -> Classes | None:
    """The labels of the test set on this machine; None where it is not here or cannot be read."""
    if evidence.artifacts is None:
        return None
    path = Paths(Path(), evidence.artifacts, Path()).testset(evidence.plan.profile, evidence.plan.dataset)
    try:
        with np.load(path, allow_pickle=False) as file:
            labels: Classes = file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return labels


def _answer_files(evidence: Evidence) -> Iterator[tuple[Entry, Path]]:
    """Torch's answers that are on this machine."""
    for entry in evidence.entries.values() if evidence.artifacts else []:
        assert evidence.artifacts is not None
        path = answers_file(weights_file(evidence.artifacts, evidence.plan.profile, entry.cell).parent)
        if path.is_file():
            yield entry, path
