"""Accuracy of one model on all test images, through the same engine and options as its latency."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.bench.engines import Infer, load_engine, open_model, runtime_of
from harness.bench.instruction_set import evidence, require_shown
from harness.bench.job import Assignment, ModelInput
from harness.bench.testset import Testset, load_testset, preprocess
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.host.cpus import require_affinity
from harness.predictions import encoded, load_classes

BATCH = 100
Answers = npt.NDArray[np.int64]


def test_accuracy(benchmark: Any, assignment: Assignment) -> None:
    """One pass over the test set. pytest-benchmark times it as one round, which nothing makes use of."""
    require_affinity(assignment.cpus)
    require_shown(assignment.shown)
    engine, model, threads = load_engine(assignment.engine), assignment.model, assignment.threads
    infer = open_model(engine, model, threads)
    path, wanted = assignment.images()
    testset = load_testset(path)
    arguments = (infer, testset, wanted)
    given = benchmark.pedantic(answer, args=arguments, rounds=1, iterations=1, warmup_rounds=0)
    benchmark.extra_info.update(
        cell=model.cell,
        run=assignment.run,
        onnx_sha256=model.onnx_sha256,
        runtime=runtime_of(assignment.engine),
        session=engine.options(threads),
        predictions=base64.b64encode(encoded(given)).decode("ascii"),
        agreeing=agreeing(given, model.answers, model.answers_sha256),
        facts=engine.facts(model.content(), threads),
        instruction_set=evidence(assignment.shown, engine, threads).model_dump(mode="json"),
    )


def answer(infer: Infer, testset: Testset, wanted: ModelInput) -> Answers:
    """The class with the largest logit for each image, [N]. Logits that are not finite are an error, not a miss.

    Where a model takes a fixed number of images at a time, the last batch is filled up with images that count no more.
    """
    given, batch = [], wanted.batch or BATCH
    for start in range(0, len(testset.labels), batch):
        labels, images = testset.labels[start : start + batch], testset.images[start : start + batch]
        if wanted.batch:
            images = np.resize(images, (batch, *images.shape[1:]))
        logits, *more = infer({wanted.name: preprocess(images, wanted)})
        if more:
            raise HarnessError(f"the model has {1 + len(more)} outputs, and accuracy needs the one of a classifier")
        logits = logits[: len(labels)]
        if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] <= labels.max():
            raise HarnessError(f"output is {logits.shape} for {len(labels)} images with labels to {labels.max()}")
        if not np.isfinite(logits).all():
            raise HarnessError(f"logits are not finite (first in images {start} to {start + len(labels) - 1})")
        given.append(logits.argmax(axis=1))
    return np.concatenate(given)


def agreeing(given: Answers, path: Path | None, sha256: str | None = None) -> int | None:
    """For how many images torch gave the same answer; None where its answers are not known."""
    if path is None:
        return None
    remedy = "delete it to bench without torch's answers"
    try:
        torchs = load_classes(path)
    except HarnessError as error:
        raise HarnessError(f"{error}; {remedy}") from error
    if sha256 and (found := file_sha256(path)) != sha256:
        raise HarnessError(f"{path}: sha256 is {found[:12]}..., the train record says {sha256[:12]}...; {remedy}")
    if torchs.shape != given.shape:
        raise HarnessError(f"{path}: {torchs.shape} answers for {len(given)} images; {remedy}")
    return int((given == torchs).sum())
