"""What an ONNX file says of itself: which model it is, and how its input is to be prepared."""

import json
import math

import onnx

from harness.bench.job import ModelFile, ModelInput
from harness.errors import HarnessError

# The names that every exported model gives its one input and its one output.
INPUT, OUTPUT = "input", "output"


def model_input(model: ModelFile) -> ModelInput:
    """What the file takes. HarnessError where it is not the file that the job means, or says too little of itself."""
    try:
        found = onnx.load_model_from_string(model.read())
    except HarnessError:
        raise
    except Exception as error:  # protobuf's decoding errors have no public class
        raise HarnessError(
            f"{model.onnx}: not a readable ONNX file ({' '.join(str(error).split())}); export {model.cell} again"
        ) from error
    metadata = metadata_of(found)
    if metadata.get("key") != model.key:
        raise HarnessError(
            f"{model.onnx}: was exported for cell {metadata.get('cell', 'unknown')} (key {metadata.get('key')}), "
            f"not for {model.cell} (key {model.key}); export {model.cell} again"
        )
    mean, std = (_three_floats(metadata, name, model) for name in ("mean", "std"))
    size = metadata.get("image_size", "")
    if min(std) <= 0 or not size.isdecimal() or int(size) < 1:
        raise HarnessError(f"{model.onnx}: metadata needs std above 0 and image_size in pixels; export it again")
    _check_graph(found.graph, model, int(size))
    return ModelInput(size=int(size), mean=mean, std=std)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """What a file says of itself."""
    return {text(entry.key): text(entry.value) for entry in model.metadata_props}


def text(value: str | bytes) -> str:
    """A string of a file as text: protobuf hands out what is not UTF-8 as bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _check_graph(graph: onnx.GraphProto, model: ModelFile, size: int) -> None:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if [value.name for value in inputs] != [INPUT] or [value.name for value in graph.output] != [OUTPUT]:
        raise HarnessError(f"{model.onnx}: needs the input {INPUT!r} and the output {OUTPUT!r}; export it again")
    tensor = inputs[0].type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    shape = [dimension.dim_param or dimension.dim_value for dimension in tensor.shape.dim]
    if kind != "FLOAT" or shape[1:] != [3, size, size]:
        raise HarnessError(
            f"{model.onnx}: input is {kind} {shape}, not float32 [N, 3, {size}, {size}]; export it again"
        )


def _three_floats(metadata: dict[str, str], name: str, model: ModelFile) -> tuple[float, float, float]:
    try:
        first, second, third = (float(value) for value in json.loads(metadata[name]))
    except (KeyError, ValueError, TypeError):
        first = second = third = math.nan
    if not all(map(math.isfinite, (first, second, third))):
        raise HarnessError(f"{model.onnx}: metadata {name!r} must be a JSON list of three numbers; export it again")
    return first, second, third
