"""Answers that do not give the figures on record, each with the check that must find it."""

import hashlib
import pickle
from pathlib import Path

import numpy as np

from harness import predictions
from harness.predictions import Classes
from harness.store.paths import Paths, answers_file
from harness.store.records import AccuracyRecord, TrainRecord
from tests.checks.planted import CELL, OTHER, Bench, fault
from tests.synthetic import keep_predictions


def answered(bench: Bench, cell: str = CELL) -> tuple[Path, Classes, Classes]:
    """The file of a model's answers, the answers, and the labels; all models' answers are kept from now on."""
    if bench.get(AccuracyRecord, cell).predictions_sha256 is None:
        keep_predictions(bench.results, bench.plan)
    folder = bench.results / bench.plan.profile
    found = predictions.read(folder, bench.get(AccuracyRecord, cell))
    assert found is not None
    return folder / predictions.answers_name(cell), found.given, found.labels


def with_testset(bench: Bench) -> Path:
    """The test set of these labels, on this machine."""
    _, _, labels = answered(bench)
    path = Paths(Path(), bench.artifacts, Path()).testset(bench.plan.profile, bench.plan.dataset)
    np.savez(path, images=np.zeros((len(labels), 1, 1, 3), np.uint8), labels=labels.astype(np.int64))
    return path


def with_torchs_answers(bench: Bench) -> Path:
    """Torch's answers on this machine and on record: the same but for two images that both are wrong about."""
    _, given, labels = answered(bench)
    torchs = given.astype(np.int64)
    both = np.flatnonzero(given != labels)[:2]
    torchs[both] = (labels[both].astype(np.int64) + 2) % 100
    path = answers_file(bench.onnx().parent)
    bench.change(TrainRecord, answers_sha256=predictions.save_classes(path, torchs))
    return path


@fault("other-predictions", (CELL, "accuracy"))
def predictions_lost(bench: Bench) -> None:
    answered(bench)[0].unlink()


@fault("other-predictions", (CELL, "accuracy"))
def predictions_of_another_model(bench: Bench) -> None:
    answered(bench)[0].write_bytes(answered(bench, OTHER)[0].read_bytes())


@fault("other-predictions", (CELL, "accuracy"))
def predictions_with_one_answer_changed(bench: Bench) -> None:
    path, given, _ = answered(bench)
    given[5] = (given[5] + 1) % 100
    predictions.save_classes(path, given)


@fault("other-predictions", (CELL, "accuracy"))
def predictions_cut_short(bench: Bench) -> None:
    path, given, _ = answered(bench)
    bench.change(AccuracyRecord, predictions_sha256=predictions.save_classes(path, given[:-1]))


@fault("other-predictions", (CELL, "accuracy"))
def predictions_that_are_a_pickle(bench: Bench) -> None:
    path, given, _ = answered(bench)
    content = pickle.dumps(given)
    path.write_bytes(content)
    bench.change(AccuracyRecord, predictions_sha256=hashlib.sha256(content).hexdigest())


@fault("other-predictions", (CELL, "accuracy"))
def an_accuracy_a_hundredth_above_what_the_predictions_give(bench: Bench) -> None:
    answered(bench)
    correct = bench.get(AccuracyRecord).correct + 1
    bench.change(AccuracyRecord, correct=correct, accuracy_pct=correct / 100)


@fault("other-predictions", (CELL, "accuracy"))
def predictions_without_labels(bench: Bench) -> None:
    answered(bench)
    bench.change(AccuracyRecord, labels_sha256=None)


@fault("other-predictions", (CELL, "accuracy"))
def another_hash_of_the_predictions_on_record(bench: Bench) -> None:
    answered(bench)
    bench.change(AccuracyRecord, predictions_sha256="0" * 64)


@fault("other-predictions", (CELL, "accuracy"))
def another_hash_of_the_labels_on_record(bench: Bench) -> None:
    answered(bench)
    bench.change(AccuracyRecord, labels_sha256="0" * 64)


@fault("other-labels", (CELL, "accuracy"))
def labels_that_are_not_the_test_sets(bench: Bench) -> None:
    with_testset(bench)
    _, given, labels = answered(bench)
    wrong = np.flatnonzero(given != labels)[0]
    # another wrong answer: the count stays the same
    labels[wrong] = next(one for one in range(100) if one not in (given[wrong], labels[wrong]))
    bench.change(AccuracyRecord, **predictions.keep(bench.results, "lite", CELL, given, labels))


@fault("changed-answers", (CELL, "train"))
def answers_of_torch_that_are_not_on_record(bench: Bench) -> None:
    path = with_torchs_answers(bench)
    predictions.save_classes(path, np.zeros(10_000, np.int64))


@fault("other-torch-figures", (CELL, "train"))
def torchs_accuracy_a_hundredth_above_what_its_answers_give(bench: Bench) -> None:
    with_torchs_answers(bench)
    bench.change(TrainRecord, accuracy_pct=bench.get(TrainRecord).accuracy_pct + 0.01)


@fault("other-torch-figures", (CELL, "accuracy"))
def an_agreement_that_the_answers_do_not_give(bench: Bench) -> None:
    with_torchs_answers(bench)
    bench.change(AccuracyRecord, agreement_pct=100.0)
