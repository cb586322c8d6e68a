from typing import Any

import numpy as np
import pytest

from harness.bench.session import open_model, session_options
from harness.errors import HarnessError
from harness.files import file_sha256
from tests.bench_kit import Workshop


def test_a_good_model_opens_and_runs(workshop: Workshop) -> None:
    opened = open_model(workshop.model("student", size=8), threads=1)
    assert (opened.mean, opened.std, opened.image_size) == ((0.5,) * 3, (0.25,) * 3, 8)
    images = np.stack([np.full((3, 8, 8), value, np.float32) for value in (1, 2)])
    np.testing.assert_allclose(opened.session.run(["output"], {"input": images})[0], [[1] * 3, [2] * 3])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_session_has_the_options_on_record(workshop: Workshop, threads: int) -> None:
    options = open_model(workshop.model("student"), threads).session.get_session_options()
    chosen = session_options(threads)
    assert chosen["intra_op_num_threads"] == threads
    assert chosen["session.set_denormal_as_zero"] == "1"
    for name, value in chosen.items():
        if name.startswith("session."):
            assert options.get_session_config_entry(name) == value
        elif name == "provider":
            continue
        else:
            assert getattr(options, name) == value or getattr(options, name).name == value


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_file_is_not_the_one_of_the_job(workshop: Workshop, keep: int) -> None:
    model = workshop.model("student")
    model.onnx.write_bytes(model.onnx.read_bytes()[:keep])
    with pytest.raises(HarnessError, match=r"student\.onnx: sha256 is .*export student again"):
        open_model(model, 1)


def test_a_corrupt_file_with_the_right_hash_is_refused(workshop: Workshop) -> None:
    model = workshop.model("student")
    model.onnx.write_bytes(model.onnx.read_bytes()[:100])
    with pytest.raises(HarnessError, match=r"student\.onnx: onnxruntime .* cannot load it"):
        open_model(model.model_copy(update={"onnx_sha256": file_sha256(model.onnx)}), 1)


def test_a_missing_file_is_named(workshop: Workshop) -> None:
    model = workshop.model("student")
    model.onnx.unlink()
    with pytest.raises(HarnessError, match=r"student\.onnx: cannot be read"):
        open_model(model, 1)


def test_swapped_models_are_seen(workshop: Workshop) -> None:
    one, other = workshop.model("one"), workshop.model("other")
    swapped = one.model_copy(update={"onnx": other.onnx, "onnx_sha256": other.onnx_sha256})
    with pytest.raises(HarnessError, match=r"other\.onnx: was exported for cell other .* not for one"):
        open_model(swapped, 1)


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
    model = workshop.model("student", **metadata)
    with pytest.raises(HarnessError, match=rf"student\.onnx: .*{said}"):
        open_model(model, 1)
