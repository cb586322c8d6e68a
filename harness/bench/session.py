"""The one place that opens a model: latency and accuracy go through the same session with the same options."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from harness.bench.job import Model
from harness.errors import HarnessError

RUNTIME = f"onnxruntime {onnxruntime.__version__}"
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Opened:
    """A model ready to run: input `input` float32 [N, 3, image_size, image_size], output `output` [N, classes]."""

    session: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int


def session_options(threads: int) -> dict[str, Any]:
    """All options that can change a latency, explicit rather than left to the runtime's defaults; goes on record.

    An explicit thread count also keeps the runtime from pinning threads to cores outside a cpuset. Denormals are
    flushed because they slow identical graphs five- to sixteenfold; spinning is what the runtime does by default.
    """
    return {
        "provider": "CPUExecutionProvider",
        "intra_op_num_threads": threads,
        "inter_op_num_threads": 1,
        "execution_mode": "ORT_SEQUENTIAL",
        "graph_optimization_level": "ORT_ENABLE_ALL",
        "enable_cpu_mem_arena": True,
        "enable_mem_pattern": True,
        "session.intra_op.allow_spinning": "1",
        "session.inter_op.allow_spinning": "0",
        "session.set_denormal_as_zero": "1",
    }


def build_options(threads: int) -> onnxruntime.SessionOptions:
    """The same as the runtime takes them."""
    options = onnxruntime.SessionOptions()
    for name, value in session_options(threads).items():
        if name.startswith("session."):
            options.add_session_config_entry(name, value)
        elif name == "execution_mode":
            options.execution_mode = getattr(onnxruntime.ExecutionMode, value)
        elif name == "graph_optimization_level":
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, value)
        elif name != "provider":
            setattr(options, name, value)
    return options


def open_model(model: Model, threads: int) -> Opened:
    """Open exactly the file that the job means: same bytes, same key. Anything else is a HarnessError naming it."""
    data = read_checked(model)
    provider = session_options(threads)["provider"]
    try:
        session = onnxruntime.InferenceSession(data, build_options(threads), providers=[provider])
    except MemoryError:
        raise
    except Exception as error:
        # The runtime's exceptions share no base class of their own.
        raise HarnessError(
            f"{model.onnx}: {RUNTIME} cannot load it ({_one_line(error)}); export the model again"
        ) from error
    return _described(session, model)


def read_checked(model: Model) -> bytes:
    """The file's bytes, if they are the ones that were exported."""
    try:
        data = model.onnx.read_bytes()
    except OSError as error:
        raise HarnessError(f"{model.onnx}: cannot be read ({error.strerror}); export {model.cell} again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != model.onnx_sha256:
        raise HarnessError(
            f"{model.onnx}: sha256 is {found[:12]}..., the job says {model.onnx_sha256[:12]}...: "
            f"the file is truncated, corrupt or another model; export {model.cell} again"
        )
    return data


def _described(session: Any, model: Model) -> Opened:
    """Check that the model says what it is, and that it is the one meant."""
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if metadata.get("key") != model.key:
        raise HarnessError(
            f"{model.onnx}: was exported for cell {metadata.get('cell', 'unknown')} (key {metadata.get('key')}), "
            f"not for {model.cell} (key {model.key}); export {model.cell} again"
        )
    mean, std = (_three_floats(metadata, name, model.onnx) for name in ("mean", "std"))
    size = metadata.get("image_size", "")
    if min(std) <= 0 or not size.isdecimal() or int(size) < 1:
        raise HarnessError(f"{model.onnx}: metadata needs std above 0 and image_size in pixels; export it again")
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    if [item.name for item in inputs] != [INPUT] or outputs != [OUTPUT]:
        raise HarnessError(f"{model.onnx}: needs the input {INPUT!r} and the output {OUTPUT!r}; export it again")
    if inputs[0].type != "tensor(float)" or list(inputs[0].shape[1:]) != [3, int(size), int(size)]:
        raise HarnessError(
            f"{model.onnx}: input is {inputs[0].type} {inputs[0].shape}, not float32 [N, 3, {size}, {size}]; "
            f"export it again"
        )
    return Opened(session=session, mean=mean, std=std, image_size=int(size))


def _three_floats(metadata: dict[str, str], name: str, path: Path) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in json.loads(metadata[name]))
    except (KeyError, ValueError, TypeError):
        values = ()
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise HarnessError(f"{path}: metadata {name!r} must be a JSON list of three numbers; export it again")
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
