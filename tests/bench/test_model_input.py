from typing import Any

import onnx
import pytest

from harness.bench.job import ModelFile, ModelInput
from harness.bench.model_input import model_input
from harness.errors import HarnessError
from harness.files import file_sha256
from tests.bench_kit import Workshop, model_file


def swapped(model: ModelFile, **changes: Any) -> ModelFile:
    return model.model_copy(update=changes)


def test_a_model_says_what_it_takes(workshop: Workshop) -> None:
    found = model_input(workshop.model("student", size=8))
    assert found == ModelInput(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert ModelInput.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_file_is_not_the_one_of_the_job(workshop: Workshop, keep: int) -> None:
    model = workshop.model("student")
    model.onnx.write_bytes(model.onnx.read_bytes()[:keep])
    with pytest.raises(HarnessError, match=r"student\.onnx: sha256 is .*export student again"):
        model_input(model)


def test_a_corrupt_file_with_the_right_hash_is_refused(workshop: Workshop) -> None:
    model = workshop.model("student")
    model.onnx.write_bytes(model.onnx.read_bytes()[:100])
    with pytest.raises(HarnessError, match=r"student\.onnx: not a readable ONNX file .*export student again"):
        model_input(model_file("student", model.onnx, file_sha256(model.onnx)))


def test_a_missing_file_is_named(workshop: Workshop) -> None:
    model = workshop.model("student")
    model.onnx.unlink()
    with pytest.raises(HarnessError, match=r"student\.onnx: no such file"):
        model_input(model)


def test_swapped_models_are_noticed(workshop: Workshop) -> None:
    one, other = workshop.model("one"), workshop.model("other")
    with pytest.raises(HarnessError, match=r"other\.onnx: was exported for cell other .* not for one"):
        model_input(swapped(one, onnx=other.onnx, onnx_sha256=other.onnx_sha256))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"mean": None}, "'mean'"),
        ({"mean": "0.5"}, "'mean'"),
        ({"std": "[1, 2]"}, "'std'"),
        ({"std": "[1, NaN, 1]"}, "'std'"),
        ({"std": "[1, 0, 1]"}, "std above 0"),
        ({"image_size": "big"}, "image_size"),
        ({"image_size": "0"}, "image_size"),
        ({"image_size": "16"}, r"not float32 \[N, 3, 16, 16\]"),
        ({"key": None}, "was exported for"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(workshop: Workshop, metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(HarnessError, match=rf"student\.onnx: .*{said}"):
        model_input(workshop.model("student", **metadata))


@pytest.mark.parametrize(("name", "other"), [("input", "images"), ("output", "logits")])
def test_a_graph_with_other_names_is_refused(workshop: Workshop, name: str, other: str) -> None:
    model = workshop.model("student")
    graph = onnx.load(model.onnx)
    for value in [*graph.graph.input, *graph.graph.output]:
        value.name = other if value.name == name else value.name
    onnx.save(graph, model.onnx)
    with pytest.raises(HarnessError, match="needs the input 'input' and the output 'output'"):
        model_input(swapped(model, onnx_sha256=file_sha256(model.onnx)))
