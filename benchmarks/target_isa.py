"""What showing an engine another CPU's instruction set gives, and what it costs.

Fresh, pinned processes of the bench's own, in random order block by block: a ResNet50 at full width and 32 px (random
weights, since kernels do not care), in fp32 and quantised to int8, as the host is, under the target's instruction set,
and with the library loaded and nothing masked. A figure that cannot be had on this machine is null, with its reason.
"""

import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
import torch

from benchmarks import Figures
from harness.architectures import build
from harness.bench.environments import bench_python
from harness.bench.job import Assignment, Identity, ModelFile, ModelInput
from harness.bench.latency import to_process
from harness.bench.model_input import INPUT
from harness.bench.process import measure as measure_process
from harness.datasets import Images
from harness.datasets.cifar100 import MEAN, STD
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.host.cpus import choose_cpus, read_topology
from harness.host.isa.shown import HOST, Shown, can_fault, masked, obstacle, show
from harness.intervals import paired_ratio
from harness.model_files.onnx_export import export
from harness.plan.bench_settings import Bench
from harness.plan.cpu_table import cpus, whose_instruction_set
from harness.plan.loading import load_settings
from harness.plan.specs import Choice, Network
from harness.store.records import Failure, InstructionSet, Interval

PROFILE, ENGINE = "full", "onnxruntime-1.16.0"
# Enough for an interval of a third of a percent on a quiet machine.
BLOCKS = 16
SIZE, CLASSES, IMAGES = 32, 100, 64
SEED = 0


class Variant(NamedTuple):
    """One of the things that are compared: a model, and the instruction set that its engine is shown."""

    model: str
    shown: Shown


def figures(folder: Path) -> Figures:
    """The figures, in about ten minutes. HarnessError where the engine is not set up, or a process fails."""
    workplace = Workplace(folder, load_settings(Path("matrix.toml"), PROFILE).bench)
    proven = workplace.proven()
    found: Figures = {"targets_proven": len(proven), "targets_proven_names": ", ".join(proven)}
    return {**found, **workplace.compared()}


class Workplace:
    """The models, and how a process is started on them."""

    def __init__(self, folder: Path, settings: Bench) -> None:
        self.folder, self.settings, self.target = folder, settings, settings.target.cpu
        self.python = bench_python(ENGINE)
        self.cpus = choose_cpus(read_topology(), 1).cpus
        self.testset = folder / "testset.npz"
        drawn = np.random.default_rng(SEED)
        pixels = drawn.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
        labels = drawn.integers(0, CLASSES, IMAGES)
        np.savez(self.testset, images=pixels, labels=labels)
        images = Images(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels), MEAN, STD)
        fp32 = folder / "fp32.onnx"
        torch.manual_seed(SEED)
        export(build(Network(Choice("resnet50"), CLASSES, 1.0, "cifar")), fp32, images, SIZE, 17, {})
        self.models = {"fp32": fp32, "int8": quantised(fp32)}

    def proven(self) -> list[str]:
        """The CPUs whose instruction set a process of the bench was shown, by the engine's own account."""
        few = self.settings.model_copy(update={"sampling_s": 0.01, "rounds": 11, "warmup_s": 0.0, "warmup_rounds": 1})
        found = []
        for cpu in cpus().values():
            if reason := obstacle(cpu):
                print(f"{cpu.title}: not shown: {reason}")
                continue
            # a process that contradicts itself fails
            _, seen = self.process(Variant("fp32", show("target", cpu, ENGINE, self.python)), 0, few)
            assert set(seen.cpuid) == cpu.features
            print(f"{cpu.title}: shown ({seen.way}), {seen.engine}")
            found.append(cpu.name)
        return found

    def compared(self) -> Figures:
        """Host and target, the library's cost, and the two ways."""
        reason = obstacle(self.target)
        variants = {
            "fp32 host": Variant("fp32", HOST),
            "fp32 loaded": Variant("fp32", masked(ENGINE, self.python, None)),
            "int8 host": Variant("int8", HOST),
        }
        if not reason:
            ways: tuple[Literal["patched", "faulting"], ...] = ("patched", "faulting") if can_fault() else ("patched",)
            features = self.target.features
            variants |= {f"fp32 {way}": Variant("fp32", masked(ENGINE, self.python, features, way)) for way in ways}
            variants["int8 target"] = Variant("int8", show("target", self.target, ENGINE, self.python))
        observed = self.observed(variants)
        target = "fp32 faulting" if can_fault() else "fp32 patched"

        def ratio(one: str, other: str) -> Interval | None:
            found = observed.keys() >= {one, other}
            return paired_ratio(observed[one], observed[other], SEED) if found else None

        no_way = None if can_fault() else "CPUID cannot be made to fault on this machine"
        return {
            "target": whose_instruction_set(self.target.name),
            **_with_ends("fp32_target_vs_host", ratio(target, "fp32 host"), reason or None),
            **_with_ends("int8_target_vs_host", ratio("int8 target", "int8 host"), reason or None),
            **_with_ends("int8_vs_fp32_host", ratio("int8 host", "fp32 host"), None),
            **_with_ends("int8_vs_fp32_target", ratio("int8 target", target), reason or None),
            **_pct("isa_overhead", ratio("fp32 loaded", "fp32 host"), None),
            **_pct("patched_equals_faulting", ratio("fp32 patched", "fp32 faulting"), reason or no_way),
        }

    def observed(self, variants: Mapping[str, Variant]) -> dict[str, dict[int, float]]:
        """What each variant took (ms), by block; every block has all of them, in an order of its own."""
        found: dict[str, dict[int, float]] = {name: {} for name in variants}
        for block in range(BLOCKS):
            order = sorted(variants)
            random.Random(f"{SEED}:{block}").shuffle(order)
            for name in order:
                found[name][block], _ = self.process(variants[name], block, self.settings)
            said = ", ".join(f"{name} {took[block]:.2f}" for name, took in found.items())
            print(f"block {block + 1} of {BLOCKS} (ms): {said}", file=sys.stderr, flush=True)
        return found

    def process(self, variant: Variant, block: int, settings: Bench) -> tuple[float, InstructionSet]:
        """What one fresh process took (ms), and what it saw. HarnessError where it failed."""
        path, identity = self.models[variant.model], Identity(key="", spec={}, code={})
        model = ModelFile(
            cell=variant.model,
            title=variant.model,
            key="",
            onnx=path,
            onnx_sha256=file_sha256(path),
            is_teacher=False,
            latency={},
            accuracy={"host": identity},
        )
        assignment = Assignment(
            model=model,
            input=ModelInput(size=SIZE, mean=MEAN, std=STD),
            testset=self.testset,
            settings=settings,
            harness_revision="",
            engine=ENGINE,
            shown=variant.shown,
            threads=1,
            cpus=self.cpus,
            block=block,
            failure=self.folder / "failure.json",
        )
        output = self.folder / "process.json"
        entry = measure_process("latency_suite.py", assignment, output, 600, self.python)
        if isinstance(entry, Failure):
            log = output.with_suffix(".log")
            words = log.read_text(encoding="utf-8") if log.exists() else ""
            raise HarnessError(f"{variant.model} ({variant.shown.way}): {entry.message}\n{words}")
        timed = to_process(entry, block, 0, output)
        if isinstance(timed, Failure):
            raise HarnessError(timed.message)
        return timed.low_ms, InstructionSet.model_validate(entry["extra_info"]["instruction_set"])


def quantised(fp32: Path) -> Path:
    """The same network in int8: QDQ, unsigned activations, signed weights per channel, calibrated on random images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Random(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            drawn = np.random.default_rng(SEED)
            self.batches = iter([drawn.standard_normal((1, 3, SIZE, SIZE), np.float32) for _ in range(8)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    prepared, made = fp32.with_name("prepared.onnx"), fp32.with_name("int8.onnx")
    onnx.save(without_shared_weights(onnx.load(fp32)), prepared)
    quantize_static(
        os.fspath(prepared),
        os.fspath(made),
        Random(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return made


def without_shared_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a copy of a weight in place of each Identity of it, where the quantiser does not see it."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        copy = model.graph.initializer.add()
        copy.CopyFrom(weights[node.input[0]])
        copy.name = node.output[0]
        model.graph.node.remove(node)
    return model


def _with_ends(name: str, found: Interval | None, reason: str | None, unit: str = "") -> Figures:
    if found is None:
        return {f"{name}{unit}": None, f"{name}_reason": reason}
    low, high = found.bounds or (None, None)
    return {f"{name}{unit}": found.value, f"{name}_low{unit}": low, f"{name}_high{unit}": high}


def _pct(name: str, found: Interval | None, reason: str | None) -> Figures:
    """By how many percent a ratio is off 1."""
    if found is None:
        return _with_ends(name, None, reason, "_pct")
    value, *ends = (100 * (end - 1) for end in (found.value, *(found.bounds or ())))
    return _with_ends(name, Interval(value=value, **dict(zip(("low", "high"), ends, strict=False))), reason, "_pct")
