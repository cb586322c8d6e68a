from typing import Any

import pytest

from harness.commands.latency_document import LatencyDocument
from harness.commands.latency_words import as_text, sentence

ON = "1 thread, onnxruntime 1.16.0, on Abacus"


def timing(ratio: tuple[float, float, float] | None, **more: Any) -> dict[str, Any]:
    known = {"value": ratio[0], "low": ratio[1], "high": ratio[2]} if ratio else None
    return {
        "condition": "x",
        "latency_ms": {"value": 2.0, "low": 1.9, "high": 2.1},
        "median_ms": 2.2,
        "ratio": known,
        **more,
    }


def document(*ratios: tuple[float, float, float] | None, **more: Any) -> LatencyDocument:
    """Files a, b, ... with these ratios to a."""
    files = [
        {
            "file": f"{name}.onnx",
            "title": f"{name}.onnx",
            "onnx_sha256": "0" * 64,
            "size_bytes": 97_300_000,
            "params": 314,
            "opset": 17,
            "inputs": [{"name": "input", "dtype": "float32", "shape": [1, 3, 8, 8]}],
            "timings": [timing(ratio)],
        }
        for name, ratio in zip("abcd", ((1.0, 1.0, 1.0), *ratios), strict=False)
    ]
    fields = {
        "sentence": "",
        "finished_at": "",
        "seconds": 1,
        "harness_revision": "",
        "estimator": "",
        "seed": 0,
        "precision_pct": 1.0,
        "settled": True,
        "blocks": 12,
        "conditions": [{"name": "x", "runtime": "onnxruntime 1.16.0", "threads": 1, "cpus": [1], "session": {}}],
        "files": files,
        "machine": {"cpu": "Abacus"},
        **more,
    }
    found = LatencyDocument.model_validate(fields)
    return found.model_copy(update={"sentence": sentence(found)})


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        ((0.763, 0.752, 0.775), "b.onnx is 1.31 times as fast as a.onnx [1.29, 1.33]"),
        ((1.31, 1.29, 1.33), "b.onnx takes 1.31 times as long as a.onnx [1.29, 1.33]"),
        ((1.0, 0.99, 1.01), "b.onnx and a.onnx cannot be told apart (ratio 1.000 [0.990, 1.010])"),
        (None, "b.onnx could not be measured"),
    ],
)
def test_the_sentence_says_which_is_faster_and_where(ratio: tuple[float, float, float] | None, said: str) -> None:
    assert document(ratio).sentence == f"{said}, {ON}"


def test_several_files_share_a_sentence() -> None:
    said = document((0.5, 0.49, 0.51), (2.0, 1.9, 2.1)).sentence
    assert said == (
        "b.onnx is 2.00 times as fast as a.onnx [1.96, 2.04] and "
        f"c.onnx takes 2.00 times as long as a.onnx [1.90, 2.10], {ON}"
    )


def test_what_the_first_file_differs_from_itself_by_is_no_difference() -> None:
    found = document((1.02, 1.01, 1.03))
    again = timing((1.0, 1.0, 1.0), again_ratio={"value": 1.03, "low": 1.0, "high": 1.06})
    first = found.files[0].model_validate({**found.files[0].model_dump(), "timings": [again]})
    noisy = found.model_copy(update={"files": [first, found.files[1]]})
    assert sentence(noisy).startswith("b.onnx and a.onnx cannot be told apart")
    assert "≈ 1.020 [1.010, 1.030]" in as_text(noisy)
    assert "≈" not in as_text(found)


def test_a_sentence_of_a_run_that_was_too_short_says_so() -> None:
    said = document((0.5, 0.3, 0.9), settled=False).sentence
    assert said == f"b.onnx is 2.00 times as fast as a.onnx [1.11, 3.33] (not settled to ±1 %), {ON}"


def test_the_instruction_set_that_was_shown_is_part_of_the_sentence() -> None:
    condition = {"name": "x", "runtime": "onnxruntime 1.16.0", "threads": 8, "cpus": [1], "session": {}}
    said = document((2.0, 1.9, 2.1), conditions=[{**condition, "target": "i9-9900K"}]).sentence
    assert said.endswith("8 threads, onnxruntime 1.16.0, instruction set of the i9-9900K, on Abacus")


def test_numbers_have_the_unit_that_suits_them() -> None:
    text = as_text(document((2.0, 1.9, 2.1)))
    assert "314" in text and "97.3 MB" in text
