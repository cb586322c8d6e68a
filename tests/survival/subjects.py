"""What is given hostile input: the readers of matrix.toml, of records, and of files of every kind that people have."""

import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import save_file

from harness.bench.job import Job, ModelFile, read
from harness.bench.model_input import model_input
from harness.bench.testset import load_testset
from harness.checks import findings
from harness.checks.catalogue import check_results
from harness.commands.latency_document import read_baseline
from harness.commands.overview import as_document, as_text
from harness.datasets import save_testset
from harness.datasets.cifar100 import DATASET as CIFAR
from harness.datasets.image_folder import DATASET as FOLDER
from harness.datasets.stand_in import draw
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.model_files.onnx_file import read_facts
from harness.model_files.weights import load_weights, save_weights
from harness.plan.loading import load_settings
from harness.plan.planning import Plan, make_plan
from harness.predictions import load_classes, save_classes
from harness.reporting.foot import foot
from harness.reporting.model_facts import model_facts
from harness.reporting.reading import read_rows
from harness.reporting.tables import columns, conditions, markdown, seed_means, short, terminal
from harness.store.paths import Paths
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Record, TrainRecord, load
from harness.store.states import states
from harness.transfer.manifest import read_manifest
from tests.bench_kit import Workshop, model_file
from tests.documents import DOCUMENT, as_toml
from tests.onnx_zoo import network as onnx_network
from tests.onnx_zoo import save_external
from tests.survival.fuzzing import Verdict, as_json, changed, damaged, hostile
from tests.synthetic import fill_results, keep_predictions, plan_for
from tests.training_kit import network

PROFILE = "quick"
STAGES: dict[str, type[Record]] = {"train": TrainRecord, "export": ExportRecord, "accuracy": AccuracyRecord}


# --- matrix.toml ------------------------------------------------------------------------------------------------------


def matrices(folder: Path, count: int, drawn: random.Random, verdict: Verdict) -> None:
    """Plan so many matrices, each the project's own with something wrong in it."""
    path = folder / "matrix.toml"
    for number in range(count):
        content = hostile(DOCUMENT, lambda document: as_toml(document).encode("utf-8", "surrogatepass"), drawn)
        path.write_bytes(content)
        verdict.judge(f"matrix {number}", lambda: plan_everything(path))


def plan_everything(path: Path) -> None:
    """Load a matrix and plan all of its experiments."""
    settings = load_settings(path, PROFILE)
    plan = make_plan(settings, PROFILE, "cifar100", [experiment.name for experiment in settings.experiment])
    json.dumps(as_document(plan, states(Paths(path.parent / "results", path.parent / "artifacts", path.parent), plan)))


# --- Records ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shelf:
    """Sound records of two cells, to be damaged one at a time."""

    plan: Plan
    results: Path

    @classmethod
    def make(cls, folder: Path) -> "Shelf":
        """In an empty folder."""
        plan = plan_for("lite", experiments=["prune-0.3"])
        first = plan.tables[0]
        plan = replace(plan, tables=(replace(first, cells=first.cells[:2]),))
        fill_results(plan, folder / "results")
        keep_predictions(folder / "results", plan)
        return cls(plan, folder / "results")

    def use(self, path: Path) -> None:
        """Everything that reads records; HarnessError where this one is none, after all else has been shown."""
        reason = None
        try:
            load(path, STAGES.get(path.parent.name, LatencyRecord))
        except HarnessError as error:
            reason = error
        found = states(Paths(self.results, self.results.parent / "artifacts", self.results.parent), self.plan)
        as_text(self.plan, found, only_counts=False)
        json.dumps(as_document(self.plan, found))
        findings.as_text(self.plan, check_results(self.plan, self.results, self.results.parent / "artifacts"))
        (table,) = self.plan.tables
        rows = read_rows(self.plan, table, self.results)
        for shown in (columns(rows), short(rows), model_facts(rows), seed_means(rows), conditions(rows)):
            if shown:
                markdown(shown)
                terminal(shown)
        foot(self.plan, table, rows)
        if reason:
            raise reason


def records(folder: Path, count: int, drawn: random.Random, verdict: Verdict) -> None:
    """Show so many records of all stages, each with something wrong in it, among sound ones."""
    shelf = Shelf.make(folder)
    sound = {path: path.read_bytes() for path in sorted(shelf.results.rglob("*.json"))}
    for number in range(count):
        path = drawn.choice(list(sound))
        path.write_bytes(hostile(json.loads(sound[path]), as_json, drawn))
        verdict.judge(f"record {number}, {path.relative_to(shelf.results)}", partial(shelf.use, path))
        path.write_bytes(sound[path])


# --- Files ------------------------------------------------------------------------------------------------------------


class Code:
    """An object that runs a command when it is unpickled: it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.trace}",)


Reader = Callable[[Path], object]


@dataclass(frozen=True)
class Sample:
    """A sound file and what reads it."""

    path: Path
    read: Reader


def samples(folder: Path) -> list[Sample]:
    """A file of every kind that is read, all of them sound."""
    workshop = Workshop(folder)
    save_weights(folder / "ours.safetensors", network(), {"cell": "c"})
    save_file(network().state_dict(), folder / "theirs.safetensors")
    torch.save(network().state_dict(), folder / "state.pt")
    onnx.save(onnx_network(), folder / "any.onnx")
    save_external(onnx_network(), folder / "external.onnx")
    model = workshop.model("student")
    save_testset(folder / "testset.npz", draw(10, seed=0))
    save_classes(folder / "answers.npy", np.arange(100) % 7)
    job = workshop.job(model)
    (folder / "job.json").write_text(job.model_dump_json(indent=1))
    images(folder / "images")
    documents = {"baseline.json": BASELINE, "manifest.json": MANIFEST}
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1))
    return [
        Sample(folder / "ours.safetensors", load_weights),
        Sample(folder / "theirs.safetensors", load_weights),
        Sample(folder / "state.pt", load_weights),
        Sample(folder / "any.onnx", read_facts),
        Sample(folder / "external.onnx", read_facts),
        Sample(model.onnx, lambda path: model_input(_of(path))),
        Sample(folder / "testset.npz", load_testset),
        Sample(folder / "answers.npy", load_classes),
        Sample(folder / "job.json", lambda path: read(path, Job)),
        Sample(folder / "baseline.json", read_baseline),
        Sample(folder / "manifest.json", read_manifest),
        Sample(folder / "images/train/a/0.png", lambda path: FOLDER.load(path.parents[2], {"size": 8}, train=True)),
    ]


def _of(path: Path) -> ModelFile:
    # as the job names whatever lies there: what is wrong has to be noticed in the file
    return model_file("student", path, file_sha256(path))


def images(folder: Path) -> None:
    """A folder of images of two classes."""
    for part, label in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        place = folder / part / label
        place.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            Image.new("RGB", (12, 12), (number * 90, 10, 200)).save(place / f"{number}.png")


def files(folder: Path, count: int, drawn: random.Random, verdict: Verdict) -> None:
    """Read so many files of every kind, each damaged somewhere."""
    kinds = samples(folder)
    for number in range(count):
        sample = drawn.choice(kinds)
        sound = sample.path.read_bytes()
        if sample.path.suffix == ".json" and drawn.random() < 0.5:
            content = as_json(changed(json.loads(sound), drawn))
        elif sample.path.suffix == ".safetensors" and drawn.random() < 0.5:
            content = _other_header(sound, drawn)
        else:
            content = damaged(sound, drawn)
        sample.path.write_bytes(content)
        # data sets and hashes are remembered by a file's time and size
        os.utime(sample.path, ns=(number, number))
        verdict.judge(f"file {number}, {sample.path.name}", partial(sample.read, sample.path))
        sample.path.write_bytes(sound)


def _other_header(content: bytes, drawn: random.Random) -> bytes:
    """A safetensors file whose header says something else, or claims a size that it does not have."""
    end = 8 + int.from_bytes(content[:8], "little")
    if drawn.random() < 0.2:
        return drawn.choice((2**63, 2**40, 10**9, 0)).to_bytes(8, "little") + content[8:]
    header = as_json(changed(json.loads(content[8:end]), drawn))
    return len(header).to_bytes(8, "little") + header + content[end:]


# --- Files that would run code, lead elsewhere or never end ---------------------------------------------------------


def traps(folder: Path) -> tuple[list[tuple[str, Callable[[], object]]], Path]:
    """Attempts to run a command, to read a file outside, or to read for ever; and the file that such a command leaves.

    Each has to be refused.
    """
    trace, outside = folder / "trace", folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    found: list[tuple[str, Callable[[], object]]] = []
    torch.save({"state_dict": Code(trace)}, folder / "code.pt")
    found.append(("a checkpoint", lambda: load_weights(folder / "code.pt")))
    (folder / "pickle.safetensors").write_bytes(pickle.dumps(Code(trace)))
    found.append(("a pickle named safetensors", lambda: load_weights(folder / "pickle.safetensors")))
    cifar = folder / "cifar" / CIFAR_FOLDER
    cifar.mkdir(parents=True)
    for name in ("train", "test", "meta"):
        (cifar / name).write_bytes(pickle.dumps({"data": Code(trace), "fine_labels": []}))
    found.append(("the data set, found", lambda: CIFAR.find(cifar.parent, {})))
    found.append(("the data set, loaded", lambda: CIFAR.load(cifar.parent, {}, train=True)))
    with (folder / "objects.npy").open("wb") as file:
        np.save(file, np.array([Code(trace)], dtype=object), allow_pickle=True)
    found.append(("answers", lambda: load_classes(folder / "objects.npy")))
    with zipfile.ZipFile(folder / "objects.npz", "w") as archive:
        archive.write(folder / "objects.npy", "images.npy")
        archive.write(folder / "objects.npy", "labels.npy")
    found.append(("a test set", lambda: load_testset(folder / "objects.npz")))
    for place in ("../outside/secret", str(outside / "secret"), "link"):
        name = f"leaves{len(found)}.onnx"
        inner = folder / f"inner{len(found)}"
        inner.mkdir()
        (inner / "link").symlink_to(outside / "secret")
        _external(inner / name, place)
        found.append((f"external data at {place}", partial(read_facts, inner / name)))
    os.mkfifo(folder / "fifo")
    for what, reader in READERS.items():
        for kind, path in {"a FIFO": folder / "fifo", "/dev/zero": Path("/dev/zero"), "a folder": outside}.items():
            found.append((f"{what}: {kind}", partial(reader, path)))
    return found, trace


def _external(path: Path, place: str) -> None:
    model = onnx_network()
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    path.write_bytes(model.SerializeToString())


CIFAR_FOLDER = "cifar-100-python"
READERS: dict[str, Reader] = {
    "matrix.toml": lambda path: load_settings(path, PROFILE),
    "a record": lambda path: load(path, TrainRecord),
    "an ONNX file": read_facts,
    "weights": load_weights,
    "a job": lambda path: read(path, Job),
    "a baseline": read_baseline,
    "answers": load_classes,
    "a test set": load_testset,
}
SHA = "0" * 64
MANIFEST = {
    "schema_version": 1, "cell": "teacher-s0", "title": "ResNet50", "profile": "quick", "key": "v2-0",
    "dtype": "float32", "weights_sha256": SHA, "packed_at": "2026-01-02T03:04:05+00:00",
    "files": [{"name": "weights.safetensors", "bytes": 3, "sha256": SHA,
               "parts": [{"name": "weights.safetensors.000", "bytes": 3, "sha256": SHA}]}],
}  # fmt: skip
BASELINE: dict[str, Any] = {
    "schema_version": 1, "sentence": "a takes 1 ms.", "finished_at": "2026-01-02T03:04:05+00:00", "seconds": 1.0,
    "harness_revision": "0", "estimator": "v1", "seed": 0, "precision_pct": 1.0, "settled": True, "blocks": 3,
    "conditions": [{"name": "c", "runtime": "onnxruntime 1.16.0", "threads": 1, "cpus": [0], "session": {"a": 1}}],
    "files": [{"file": "a.onnx", "title": "a", "onnx_sha256": SHA, "size_bytes": 9, "params": 1, "opset": 17,
               "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3]}],
               "timings": [{"condition": "c", "latency_ms": {"value": 1.0, "low": 0.9, "high": 1.1}}]}],
    "machine": {"cpu": "Some CPU"},
}  # fmt: skip
