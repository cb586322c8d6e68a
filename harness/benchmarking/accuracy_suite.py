"""Accuracy of one model on all test images, through the same session and options as its latency."""

from typing import Any

import numpy as np

from harness.benchmarking.host import require_affinity
from harness.benchmarking.images import Testset, load_testset, preprocess
from harness.benchmarking.job import Assignment
from harness.benchmarking.session import INPUT, OUTPUT, RUNTIME, Opened, open_model, session_options
from harness.errors import HarnessError

BATCH = 100


def test_accuracy(benchmark: Any, assignment: Assignment) -> None:
    """One pass over the test set, timed as one round for what it is worth."""
    require_affinity(assignment.cpus)
    opened = open_model(assignment.model, assignment.settings.threads)
    testset = load_testset(assignment.testset)
    correct = benchmark.pedantic(count_correct, args=(opened, testset), rounds=1, iterations=1, warmup_rounds=0)
    benchmark.extra_info.update(
        cell=assignment.model.cell,
        key=assignment.model.key,
        onnx_sha256=assignment.model.onnx_sha256,
        runtime=RUNTIME,
        session=session_options(assignment.settings.threads),
        correct=correct,
        images=len(testset.labels),
    )


def count_correct(opened: Opened, testset: Testset) -> int:
    """How many images have their largest logit at their label. Logits that are not finite are an error, not a miss."""
    correct = 0
    for start in range(0, len(testset.labels), BATCH):
        labels = testset.labels[start : start + BATCH]
        images = preprocess(testset.images[start : start + BATCH], opened.image_size, opened.mean, opened.std)
        logits = opened.session.run([OUTPUT], {INPUT: images})[0]
        if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] <= labels.max():
            raise HarnessError(f"output is {logits.shape} for {len(labels)} images with labels to {labels.max()}")
        if not np.isfinite(logits).all():
            raise HarnessError(f"logits are not finite (first in images {start} to {start + len(labels) - 1})")
        correct += int((logits.argmax(axis=1) == labels).sum())
    return correct
