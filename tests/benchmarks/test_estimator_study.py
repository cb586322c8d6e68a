import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import estimator_study
from harness.bench.job import Job
from harness.errors import HarnessError
from tests.bench_kit import HEADLINE, SETTINGS, model_file

TRUE_RATIO = 0.7


@pytest.fixture
def job(tmp_path: Path) -> Job:
    onnx = tmp_path / "model.onnx"
    models = [model_file(cell, onnx, "0" * 64, teacher=cell == "teacher") for cell in ("teacher", "student")]
    return Job.model_validate(
        dict(
            profile="lite",
            results=tmp_path / "results",
            raw=tmp_path / "raw",
            testset=tmp_path / "testset.npz",
            settings=SETTINGS,
            harness_revision="r",
            models=models,
        )
    )


# cell -> latency (s), and in how many of a disturbed run's 12 blocks its process is slowed from end to end
CELLS = {"teacher": (1e-3, 4), "teacher-control": (1e-3, 4), "student": (TRUE_RATIO * 1e-3, 7)}


def leave_run(folder: Path, seed: int, disturbed: bool) -> None:
    """Write raw samples as a run of the bench does."""
    random = np.random.default_rng(seed)
    (folder / "raw").mkdir(parents=True)
    for cell, (latency, slow) in CELLS.items():
        slowed = random.permutation(12) < (slow if disturbed else 0)
        for block in range(12):
            samples = latency * (1.8 if slowed[block] else 1.0) * (1 + random.exponential(0.01, 200))
            entry = {"extra_info": {"block": block}, "stats": {"data": samples.tolist()}}
            path = folder / "raw" / f"latency-block{block:03d}-{cell}.{HEADLINE}.json"
            path.write_text(json.dumps({"benchmarks": [entry]}))


@pytest.fixture
def studied(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    for seed, name in enumerate(["quiet-1", "quiet-2", "disturbed-1", "disturbed-2"]):
        leave_run(tmp_path / name, seed, name.startswith("disturbed"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/estimators.md").write_text(
        "# Study\n\n<!-- table: studies estimators -->\n<!-- end -->\n\nThe end.\n"
    )
    monkeypatch.chdir(tmp_path)
    return estimator_study.study(tmp_path, job)


def test_slow_processes_move_the_median_but_not_the_lower_quartile(studied: list[Path]) -> None:
    rows = {
        (row["within"], row["over"]): row for row in json.loads(Path("results/benchmarks/estimators.json").read_text())
    }
    assert len(rows) == 20
    chosen, usual = rows["1st percentile", "lower quartile"], rows["median", "median"]
    assert chosen["moved_by_disturbance_max_pct"] < 1
    assert usual["moved_by_disturbance_max_pct"] > 40
    assert all(value >= 0 for row in rows.values() for name, value in row.items() if name.endswith("pct"))


def test_the_document_keeps_its_words_and_gets_a_table_and_a_plot(studied: list[Path]) -> None:
    assert studied == [
        Path("results/benchmarks/estimators.json"),
        Path("docs/estimators.svg"),
        Path("docs/estimators-dark.svg"),
        Path("docs/estimators.md"),
    ]
    text = Path("docs/estimators.md").read_text()
    assert text.startswith("# Study\n") and text.endswith("The end.\n")
    assert text.count("**1st percentile** | **lower quartile**") == 1
    assert text.count("\n| ") == 21
    light, dark = (Path(f"docs/estimators{theme}.svg").read_text() for theme in ("", "-dark"))
    assert "Two runs differ by (%), worst ratio</text>" in light
    assert "#222222" in light and "#222222" not in dark


def test_the_control_is_not_read_and_every_block_is(tmp_path: Path, job: Job) -> None:
    leave_run(tmp_path / "one", 0, disturbed=False)
    found = estimator_study.read(tmp_path / "one" / "raw", job)
    assert list(found) == ["teacher", "student"]
    assert all(sorted(blocks) == list(range(12)) for blocks in found.values())


def test_a_missing_document_is_an_error_of_one_line(studied: list[Path], tmp_path: Path, job: Job) -> None:
    Path("docs/estimators.md").unlink()
    with pytest.raises(HarnessError, match=r"docs/estimators\.md: not found"):
        estimator_study.study(tmp_path, job)
