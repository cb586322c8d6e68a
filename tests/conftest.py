"""What all tests share."""

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from harness.plan.loading import load_settings
from harness.plan.settings import Settings
from tests.documents import DOCUMENT, Load, as_toml

pytest_plugins = ["tests.training_kit", "tests.bench_kit", "tests.checks_kit", "tests.shown_kit"]
# A shared machine has slow moments, so no deadline; and where nobody is watching, the same examples every time.
hypothesis_settings.register_profile("house", deadline=None, max_examples=60, derandomize="CI" in os.environ)
hypothesis_settings.load_profile("house")


# The tests that take a Docker engine and both images.
IN_CONTAINERS = "containers/test_in_containers.py"
# The files that take longest, these first. Were one of them begun last, other processes would wait for it.
LONGEST = (
    IN_CONTAINERS,
    "checks/test_remedies.py",
    "test_end_to_end.py",
    "training/test_ray_tasks.py",
    "training/test_workers.py",
    "commands/test_latency_files.py",
    "cli/test_transfer_verbs.py",
    "reporting/page/test_in_browser.py",
    "benchmarks/test_planted_figures.py",
    "cli/test_app.py",
    "bench/test_bench_run.py",
    "benchmarks/test_training_speed.py",
    "bench/engines/test_engines.py",
)


@pytest.fixture(autouse=True)
def look_for_garbage() -> Iterator[None]:
    """Verbs that end soon look for none, and here they may be called in this process, which goes on."""
    yield
    gc.enable()


@pytest.fixture
def document() -> dict[str, Any]:
    """The project's matrix.toml, parsed; the test's own to change."""
    return deepcopy(DOCUMENT)


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads a document, by way of a file, as one of its profiles."""
    folder = tmp_path_factory.mktemp("matrix")

    def load(document: dict[str, Any], profile: str = "long") -> Settings:
        path = folder / "matrix.toml"
        path.write_text(as_toml(document), encoding="utf-8")
        return load_settings(path, profile)

    return load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    place = {f"tests/{file}": number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


def _reason(report: pytest.TestReport) -> str:
    """Why it was skipped."""
    assert isinstance(report.longrepr, tuple)
    return str(report.longrepr[2]).removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped, a line a reason; and what became of the container tests: with no engine none ran."""
    skipped = terminalreporter.stats.get("skipped", [])
    elsewhere = Counter(_reason(report) for report in skipped if IN_CONTAINERS not in report.nodeid)
    for reason, count in sorted(elsewhere.items()):
        terminalreporter.write_line(f"Skipped: {count}: {reason}")
    stats = {
        outcome: [report for report in terminalreporter.stats.get(outcome, []) if IN_CONTAINERS in report.nodeid]
        for outcome in ("passed", "failed", "error", "skipped")
    }
    if not any(stats.values()):
        return
    said = ", ".join(f"{len(reports)} {outcome}" for outcome, reports in stats.items() if reports)
    reasons = {_reason(report) for report in stats["skipped"]}
    terminalreporter.write_line(f"Container tests: {said}{' (' + '; '.join(sorted(reasons)) + ')' if reasons else ''}")


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Undo what the bench's sessions do to the processor: denormals read as zero in the whole thread, from then on.

    In a bench process that is meant; here it would reach the tests that come after.
    """
    yield
    if sys.float_info.min / 2 == 0:
        import torch

        torch.set_flush_denormal(False)
