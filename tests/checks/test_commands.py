import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import HarnessError
from harness.store.paths import CIFAR_FOLDER
from harness.store.records import ExportRecord, LatencyRecord
from tests.checks.faults_of_measurement import wide_interval
from tests.checks.planted import CELL, Bench
from tests.synthetic import MATRIX


@pytest.fixture
def run(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Run":
    # CIFAR-100 at hand, so that the plan's cells are those of the synthetic records wherever the tests run.
    (tmp_path / "data" / CIFAR_FOLDER).mkdir(parents=True)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    return Run(bench)


class Run:
    """Runs a verb on the test's own folders."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def __call__(self, verb: str, *more: str) -> Result:
        where = [
            "--matrix",
            str(MATRIX),
            "--results",
            str(self.bench.results),
            "--artifacts",
            str(self.bench.artifacts),
        ]
        which = ["--profile", "lite", "--experiment", "prune-0.3"]
        return CliRunner().invoke(app, [verb, *which, *where, *more])


def test_check_of_sound_results_succeeds(run: Run) -> None:
    result = run("check")
    assert result.exit_code == 0
    assert result.stdout.startswith("check lite: 10 models")


def test_check_fails_on_errors_and_names_the_row(run: Run, bench: Bench) -> None:
    bench.onnx().write_bytes(b"cut short")
    result = run("check")
    assert result.exit_code == 1
    assert f"error: changed-file (1 row)\n  {CELL}: " in result.stdout


def test_check_does_not_fail_on_warnings(run: Run, bench: Bench) -> None:
    wide_interval(bench)
    result = run("check")
    assert result.exit_code == 0
    assert "warning: " in result.stdout


def test_check_prints_one_json_document(run: Run, bench: Bench) -> None:
    bench.change(ExportRecord, denormal_weights=3)
    result = run("check", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [(finding["check"], finding["cell"]) for finding in document["findings"]] == [("denormal-weights", CELL)]


def test_report_checks_first_and_shows_the_failing_row(run: Run, bench: Bench, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: full seeds -->\n<!-- end -->\n")
    bench.change(ExportRecord, denormal_weights=3)
    path = bench.path(LatencyRecord)
    path.write_text(path.read_text()[:100])
    result = run("report", "--document", str(readme))
    assert result.exit_code == 0
    assert f"error: denormal-weights (1 row)\n  {CELL}: " in result.stderr
    _, said, table, *_ = (bench.results / "lite" / "tables" / "prune-0.3.md").read_text().split("\n\n")
    assert said == "Instruction set: the Intel Core i9-9900K's. Cores, caches and clock: the measuring machine's."
    (row,) = [line for line in table.splitlines() if line.startswith("| P(0.3_BN)_KD(3)_SEED(0)")]
    assert "latency record is unreadable" in row
    assert "failed: denormal-weights" in row
    assert len([line for line in table.splitlines() if line.startswith("| P(")]) == 9


def test_a_report_of_scratch_results_leaves_the_checkouts_readme_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    marked = "<!-- table: lite prune-0.3 -->\n<!-- end -->\n"
    Path("README.md").write_text(marked)
    assert run("report").exit_code == 0
    assert Path("README.md").read_text() == marked
    assert run("report", "--document", "README.md").exit_code == 0
    assert "| P(0.3_BN)_KD(3)_SEED(0)" in Path("README.md").read_text()


def test_report_names_what_it_wrote_and_what_was_the_same(run: Run, bench: Bench, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: full seeds -->\n<!-- end -->\n")
    lite = bench.results / "lite"
    page = lite / "report.html"
    files = f"{lite / 'figures/prune-0.3.png'}, {lite / 'tables/prune-0.3.md'}, {page}"
    first = run("report", "--document", str(readme)).stdout.splitlines()
    assert first[-4:-1] == [f"Written: {files}", f"Unchanged: {readme}", ""]
    again = run("report", "--document", str(readme)).stdout.splitlines()
    assert again[-4:-1] == ["", f"Unchanged: {readme}, {files}", ""]
    assert first[-1] == again[-1]
    assert first[-1].startswith(f"Open {page} in a browser. Experiment 1: prune amount 0.3. Best per latency: ")


def test_the_page_alone_can_be_written(run: Run, bench: Bench) -> None:
    said = run("report", "--page-only").stdout
    lite = bench.results / "lite"
    assert said.startswith(f"Open {lite / 'report.html'} in a browser. ") and (lite / "report.html").is_file()
    assert not (lite / "tables").exists() and not (lite / "figures").exists()


def test_compare_prints_its_table_and_refuses_other_machines(run: Run, sound: Bench, bench: Bench) -> None:
    before, after = str(sound.results / "lite"), str(bench.results / "lite")
    result = CliRunner().invoke(app, ["compare", before, after])
    assert result.exit_code == 0
    assert "no significant change" in result.stdout
    bench.environment(LatencyRecord, cpu="Another CPU")
    result = CliRunner().invoke(app, ["compare", before, after])
    assert isinstance(result.exception, HarnessError)
    assert "--force" not in CliRunner().invoke(app, ["compare", "--help"]).stdout
