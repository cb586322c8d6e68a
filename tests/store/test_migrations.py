import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.checks.catalogue import STRICT, run_checks
from harness.checks.evidence import read_evidence
from harness.errors import HarnessError
from harness.plan import specs
from harness.plan.specs import Document, Stage
from harness.store import migrations
from harness.store.migrations import MIGRATIONS, migrate_folder
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, TrainRecord
from tests.checks.planted import CELL, Bench
from tests.finished import finish, states_of
from tests.synthetic import plan_for

Tree = dict[str, bytes]


def tree(folder: Path) -> Tree:
    """Every file below a folder with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def add_label_smoothing(own: Document) -> Document:
    """What a later harness might do: its students have one setting more, with which the old ones were made at 0."""
    return {**own, "label_smoothing": 0.0} if own["kind"] == "student" else own


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A finished plan of today's scheme."""
    return finish(tmp_path)


def set_scheme(patch: pytest.MonkeyPatch, scheme: int) -> None:
    patch.setattr(specs, "SCHEME", scheme)
    specs._key_of_text.cache_clear()


@pytest.fixture(autouse=True)
def forget_keys_of_other_schemes() -> Iterator[None]:
    yield
    specs._key_of_text.cache_clear()


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes this a harness of the next scheme, which has a migration from the present one."""

    def upgrade() -> None:
        before = Stage.__dict__["settings"].fget
        monkeypatch.setitem(MIGRATIONS, specs.SCHEME, add_label_smoothing)
        set_scheme(monkeypatch, specs.SCHEME + 1)
        monkeypatch.setattr(Stage, "settings", property(lambda stage: add_label_smoothing(before(stage))))

    return upgrade


def planned_anew(bench: Bench) -> Bench:
    """The same folders under a plan that this harness makes."""
    return Bench(plan_for("lite", experiments=["prune-0.3"]), bench.results, bench.artifacts)


def test_there_is_a_migration_from_every_scheme_with_keys_like_todays() -> None:
    assert sorted(MIGRATIONS) == list(range(2, specs.SCHEME))


def test_records_of_the_present_scheme_stay_as_they_are(bench: Bench) -> None:
    before = tree(bench.results.parent)
    assert migrate_folder(bench.results, bench.artifacts) == []
    assert tree(bench.results.parent) == before


def test_without_a_migration_another_scheme_makes_everything_stale(bench: Bench, upgrade: Callable[[], None]) -> None:
    """So the test below shows that it is the migration that saves the models."""
    upgrade()
    found = planned_anew(bench)
    assert {state.training for state in states_of(found)} == {"missing"}


def test_after_a_migration_a_finished_folder_stands_completely(bench: Bench, upgrade: Callable[[], None]) -> None:
    upgrade()
    found = planned_anew(bench)
    rewritten = migrate_folder(bench.results, bench.artifacts)
    cells = found.plan.cells
    conditions = found.plan.settings.bench.conditions
    assert len(set(rewritten)) == len(rewritten) == len(cells) * (3 + len(conditions))
    assert {(state.training, state.benching, state.reason) for state in states_of(found)} == {("done", "done", None)}
    evidence = read_evidence(found.plan, found.results, found.artifacts)
    # the weights of a finished synthetic plan are no weights
    assert [finding for finding in run_checks(evidence, STRICT) if finding.check != "changed-weights"] == []
    student = found.get(TrainRecord, CELL)
    assert student.spec["label_smoothing"] == 0.0
    assert student.key == found.cell().trained.key and student.key.startswith(f"v{specs.SCHEME}-")
    assert migrate_folder(bench.results, bench.artifacts) == []


def test_a_migration_changes_settings_and_keys_and_nothing_else(bench: Bench, upgrade: Callable[[], None]) -> None:
    def figures() -> list[dict[str, Any]]:
        paths = sorted(bench.results.rglob("*.json"))
        return [{k: v for k, v in json.loads(path.read_text()).items() if k not in ("key", "spec")} for path in paths]

    before = figures()
    upgrade()
    migrate_folder(bench.results)
    assert figures() == before


def test_a_failed_record_is_migrated_too(bench: Bench, upgrade: Callable[[], None]) -> None:
    bench.change(TrainRecord, status="failed", weights_sha256=None)
    upgrade()
    migrate_folder(bench.results, bench.artifacts)
    (state,) = [state for state in states_of(planned_anew(bench)) if state.cell.id == CELL]
    assert state.training == "failed"


def test_what_is_no_record_and_what_has_no_parent_stay_as_they_are(bench: Bench, upgrade: Callable[[], None]) -> None:
    bench.path(TrainRecord).unlink()
    (bench.path(AccuracyRecord).parent / "notes.json").write_text('{"key": "v2-0123", "spec": 1}')
    (bench.path(AccuracyRecord).parent / "list.json").write_text("[1]")
    (bench.path(AccuracyRecord).parent / "cut.json").write_text('{"key": "v2-01')
    upgrade()
    before = tree(bench.results)
    migrate_folder(bench.results)
    after = tree(bench.results)
    same = {name for name in before if before[name] == after[name]}
    assert same == {
        *(f"lite/accuracy/{name}.json" for name in ("notes", "list", "cut")),
        *(
            bench.path(kind).relative_to(bench.results).as_posix()
            for kind in (ExportRecord, LatencyRecord, AccuracyRecord)
        ),
        *(
            bench.path(LatencyRecord, under=condition).relative_to(bench.results).as_posix()
            for condition in bench.plan.settings.bench.conditions
        ),
    }


@pytest.mark.parametrize("writes", [0, 1, 20, 45])
def test_an_interrupted_migration_is_completed_by_the_next(
    bench: Bench, tmp_path: Path, upgrade: Callable[[], None], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(bench.results, whole / "results")
    shutil.copytree(bench.artifacts, whole / "artifacts")
    upgrade()
    migrate_folder(whole / "results", whole / "artifacts")
    left = iter(range(writes))

    def write(path: Path, text: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        path.write_text(text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(migrations, "write_text", write)
        migrate_folder(bench.results, bench.artifacts)
    migrate_folder(bench.results, bench.artifacts)
    assert tree(bench.results) == tree(whole / "results")
    assert tree(bench.artifacts) == tree(whole / "artifacts")


def test_a_scheme_without_a_migration_is_one_clear_line_and_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = specs.SCHEME
    set_scheme(monkeypatch, here + 2)
    monkeypatch.setitem(MIGRATIONS, here, add_label_smoothing)
    before = tree(bench.results)
    message = f"is of scheme {here}, and there is no migration from scheme {here + 1} to {here + 2}; use the harness"
    with pytest.raises(HarnessError, match=message):
        migrate_folder(bench.results, bench.artifacts)
    assert tree(bench.results) == before


def test_migrations_follow_one_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(own: Document) -> Document:
        return {("smoothing" if name == "label_smoothing" else name): value for name, value in own.items()}

    monkeypatch.setitem(MIGRATIONS, specs.SCHEME, add_label_smoothing)
    monkeypatch.setitem(MIGRATIONS, specs.SCHEME + 1, rename)
    set_scheme(monkeypatch, specs.SCHEME + 2)
    migrate_folder(bench.results)
    record = bench.get(TrainRecord)
    assert record.spec["smoothing"] == 0.0 and "label_smoothing" not in record.spec
    assert record.key == specs.key_of(record.spec) and record.key.startswith(f"v{specs.SCHEME}-")
