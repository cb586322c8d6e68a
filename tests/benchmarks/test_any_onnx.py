import random
from pathlib import Path

import pytest

from benchmarks.any_onnx import blocks_of, convolutions, replayed
from harness.commands.latency_files import Request, bench_settings, measure_files
from harness.model_files.onnx_file import read_facts
from tests.bench_kit import machine

SETTINGS = bench_settings(Request([Path("a"), Path("a")], engines=["onnxruntime"]), machine([[0]]))


def noisy(slower: float, noise: float) -> list[tuple[float, float, float]]:
    """Blocks in which the second file takes so many times as long as the first."""
    draw = random.Random(0)
    return [(draw.gauss(1, noise), draw.gauss(1, noise), draw.gauss(slower, noise)) for _ in range(60)]


@pytest.mark.parametrize(
    ("slower", "noise", "usual", "strict"),
    [
        (1.0, 0.001, "within", "within"),
        (1.2, 0.001, "beyond", "beyond"),
        (1.03, 0.001, "within", "beyond"),
        (1.05, 0.2, "unclear", "unclear"),
    ],
)
def test_a_replayed_run_is_judged_as_a_real_one(slower: float, noise: float, usual: str, strict: str) -> None:
    assert replayed(noisy(slower, noise), SETTINGS, seed=1) == {"usual": usual, "strict": strict}


def test_the_blocks_of_a_run_of_a_file_against_itself_are_read_off_its_document(tmp_path: Path) -> None:
    file = convolutions(tmp_path / "aa.onnx", layers=1, channels=8)
    assert read_facts(file).params == 3 * 8 * 9
    found = measure_files(Request([file, file], engines=["onnxruntime"], minutes=1e-6, sampling_s=0.001))
    blocks = blocks_of(found)
    assert len(blocks) == found.blocks
    assert all(took > 0 for block in blocks for took in block)
