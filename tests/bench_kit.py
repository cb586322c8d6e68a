"""A tiny model and a tiny test set for which the right answer is known."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.bench.job import Identity, Job, ModelFile
from harness.files import file_sha256
from harness.host.cpus import Topology
from tests.documents import ROOT

TARGET = {"name": "i9-9900K"}
# The fewest blocks that a bench accepts: no time is left for more, and hardly any precision is asked for.
SETTINGS: dict[str, Any] = {
    "engines": ["onnxruntime-current"],
    "isa": ["host"],
    "threads": [1],
    "precision_pct": 1e9,
    "minutes_per_model": 1e-6,
    "blocks": 3,
    "warmup_s": 0.0,
    "warmup_rounds": 2,
    "sampling_s": 0.001,
    "rounds": 11,
    "seed": 0,
    "target": TARGET,
}
HEADLINE = "onnxruntime-current-host-threads-1"
# These tests run in an environment with the current engine; the older one has an environment of its own.
OLD_ENGINE, OLD = "onnxruntime-1.16.0", "onnxruntime-1.16.0-host-threads-1"
OLD_PYTHON = ROOT / ".venvs/bench-1.16.0/bin/python"
METADATA = {"weights_sha256": "0" * 64, "mean": "[0.5, 0.5, 0.5]", "std": "[0.25, 0.25, 0.25]", "data": "stand-in"}


# The conditions that any of these tests measures under.
ENGINES = [OLD_ENGINE, "onnxruntime-current"]
CONDITIONS = [
    f"{engine}-{isa}-threads-{threads}"
    for engine in ENGINES
    for isa in ("target", "host")
    for threads in (1, 2, 4096, "all")
]


def identity(key: str) -> Identity:
    """What a job says of one measurement."""
    return Identity(key=key, spec={"kind": "latency", "parent": "v2-0"}, code={"engine onnxruntime": "0" * 64})


def model_file(cell: str, path: Path, sha256: str, teacher: bool = False, conditions: Sequence[str] = ()) -> ModelFile:
    """A model of a job, to be measured under these conditions or all that there are."""
    return ModelFile(
        cell=cell,
        title=cell.upper(),
        key=f"key-{cell}",
        onnx=path,
        onnx_sha256=sha256,
        is_teacher=teacher,
        latency={name: identity(f"latency-{cell}-{name}") for name in conditions or CONDITIONS},
        accuracy={"target": identity(f"accuracy-{cell}-target"), "host": identity(f"accuracy-{cell}")},
    )


@dataclass(frozen=True)
class Workshop:
    """Makes the bench's inputs in a temporary folder."""

    folder: Path

    def testset(self, count: int = 120, size: int = 8, wrong: int = 0) -> Path:
        """Images whose brightest channel is their label, except for the first `wrong`."""
        random = np.random.default_rng(0)
        labels = random.integers(0, 3, count)
        images = random.integers(0, 100, (count, size, size, 3))
        images[np.arange(count), :, :, labels] += 120
        labels[:wrong] = (labels[:wrong] + 1) % 3
        path = self.folder / "testset-stand-in.npz"
        np.savez(path, images=images.astype(np.uint8), labels=labels.astype(np.int64))
        return path

    def model(self, cell: str, teacher: bool = False, size: int = 8, weight: float = 1.0, **metadata: Any) -> ModelFile:
        """An ONNX file that answers with the brightest channel; `metadata` replaces (None removes) what it says."""
        path = self.folder / f"{cell}.onnx"
        props = {**METADATA, "cell": cell, "key": f"key-{cell}", "title": cell, "image_size": str(size), **metadata}
        onnx.save(tiny_network(size, weight, {k: v for k, v in props.items() if v is not None}), path)
        return model_file(cell, path, file_sha256(path), teacher)

    def job(self, *models: ModelFile, **changes: Any) -> Job:
        """A job over these models and the test set, which is made if there is none."""
        testset = self.folder / "testset-stand-in.npz"
        fields: dict[str, Any] = {
            "profile": "quick",
            "results": str(self.folder / "results"),
            "raw": str(self.folder / "raw"),
            "testset": str(testset if testset.exists() else self.testset()),
            "settings": SETTINGS,
            "harness_revision": "unknown",
            "models": [model.model_dump(mode="json") for model in models],
        }
        return Job.model_validate_json(json.dumps(fields | changes))


def tiny_network(size: int, weight: float, metadata: dict[str, str]) -> onnx.ModelProto:
    """Conv (identity, times `weight`) -> mean over the image: [N, 3, size, size] -> [N, 3]."""
    kernel = numpy_helper.from_array(np.where(np.eye(3), np.float32(weight), 0).reshape(3, 3, 1, 1), "kernel")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "kernel"], ["features"]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["output"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3])],
        [kernel],
    )
    network = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(network, metadata)
    return network


def machine(
    cores: Sequence[Sequence[int]],
    allowed: Collection[int] | None = None,
    nodes: Sequence[int] = (),
    speeds: Sequence[int] = (),
) -> Topology:
    """A picture of a machine, core by core: its logical CPUs and, where the kernel says so, its node and speed."""
    siblings = {cpu: frozenset(core) for core in cores for cpu in core}
    return Topology(
        allowed=frozenset(siblings if allowed is None else allowed),
        siblings=siblings,
        node={cpu: node for core, node in zip(cores, nodes, strict=False) for cpu in core},
        speed={cpu: speed for core, speed in zip(cores, speeds, strict=False) for cpu in core},
    )


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """A machine as recorded: file name -> content, below a folder that stands in for /."""

    def make(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / "machine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path / "machine"

    return make
