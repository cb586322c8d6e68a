from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.plan.planning import make_plan
from harness.plan.specs import code_of
from harness.store.chain import Chain, Link, as_measured, hashes, short
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    Failure,
    LatencyRecord,
    Record,
    Rounded,
    TrainRecord,
    identity,
    load,
    save,
)
from tests.checks.faults_of_the_chain import OLD_KEY, fail, swap
from tests.checks.planted import BESIDE, CELL, HEADLINE, OTHER, TEACHER, Bench
from tests.synthetic import change, fill_results, plan_for, records_for

KINDS: tuple[type[Record], ...] = (TrainRecord, ExportRecord, LatencyRecord, AccuracyRecord)
DIVERGED = Failure(kind="diverged", message="loss is nan in epoch 1")


def link(bench: Bench, kind: type[Record], cell: str = CELL, condition: str = "") -> Link[Record]:
    """The link of one stage, read anew."""
    chain, planned = Chain(bench.plan, bench.results), bench.cell(cell)
    if kind is LatencyRecord:
        return chain.latency(planned, condition)
    stages: dict[type[Record], Callable[..., Link[Record]]] = {
        TrainRecord: chain.train,
        ExportRecord: chain.export,
        AccuracyRecord: chain.accuracy,
    }
    return stages[kind](planned)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_stands_that_fits_the_plan_and_the_stage_before(bench: Bench, kind: type[Record]) -> None:
    found = link(bench, kind)
    assert (found.stage, found.state, found.reason, found.changed) == (kind.stage, "stands", "", ())
    assert found.standing == found.record == bench.get(kind)


@pytest.mark.parametrize("profile", ["quick", "lite", "long", "reference"])
def test_every_record_of_a_whole_folder_stands(profile: str, tmp_path: Path) -> None:
    plan = plan_for(profile)
    for cell in plan.cells:
        for record in records_for(plan, cell):
            save(tmp_path, record)
    chain = Chain(plan, tmp_path)
    for cell in plan.cells:
        latencies = [chain.latency(cell, name) for name in plan.settings.bench.conditions]
        for found in (chain.train(cell), chain.export(cell), *latencies, chain.accuracy(cell)):
            assert found.state == "stands"


# --- What does not stand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_record_is_missing(bench: Bench, kind: type[Record]) -> None:
    bench.path(kind).unlink()
    found = link(bench, kind)
    assert (found.state, found.record, found.standing) == ("missing", None, None)
    assert found.reason == f"there is no {kind.stage} record"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_record_is_unreadable(bench: Bench, kind: type[Record]) -> None:
    path = bench.path(kind)
    path.write_text(path.read_text()[:100])
    found = link(bench, kind)
    assert (found.state, found.record) == ("unreadable", None)
    assert str(path) in found.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_an_earlier_schema_says_what_to_do(bench: Bench, kind: type[Record]) -> None:
    path = bench.path(kind)
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    found = link(bench, kind)
    assert found.state == "unreadable"
    assert "a record of schema 1" in found.reason and "\n" not in found.reason
    assert f"move {bench.results}/lite away and make its models again" in found.reason


@pytest.mark.parametrize("kind", KINDS)
def test_another_cells_record_is_foreign(bench: Bench, kind: type[Record]) -> None:
    swap(bench.path(kind), bench.path(kind, OTHER))
    for cell, whose in ((CELL, OTHER), (OTHER, CELL)):
        found = link(bench, kind, cell)
        assert (found.state, found.record) == ("foreign", None)
        assert found.reason == f"the {kind.stage} record is that of {whose} in lite"


def test_a_latency_of_another_condition_does_not_stand(bench: Bench) -> None:
    bench.path(LatencyRecord).write_bytes(bench.path(LatencyRecord, under=BESIDE).read_bytes())
    assert link(bench, LatencyRecord).state == "stale"
    assert link(bench, LatencyRecord, condition=BESIDE).state == "stands"


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_under_another_key_is_stale(bench: Bench, kind: type[Record]) -> None:
    bench.change(kind, key=OLD_KEY)
    found = link(bench, kind)
    assert (found.state, found.standing) == ("stale", None)
    assert found.record == bench.get(kind)
    assert OLD_KEY in found.reason and "now v2-" in found.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_record_gives_its_reason(bench: Bench, kind: type[Record]) -> None:
    fail(bench, kind, DIVERGED)
    found = link(bench, kind)
    assert (found.state, found.standing, found.reason) == ("failed", None, DIVERGED.message)


def test_a_failure_under_another_key_is_stale_and_may_be_tried_again(bench: Bench) -> None:
    fail(bench, TrainRecord, DIVERGED)
    bench.change(TrainRecord, key=OLD_KEY)
    assert link(bench, TrainRecord).state == "stale"


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (TrainRecord, {"teacher_sha256": "f" * 64}, "comes from a teacher with weights ffffffffffff..., the teacher's"),
        (ExportRecord, {"weights_sha256": "f" * 64}, "is of weights ffffffffffff..., the train record's is "),
        (LatencyRecord, {"onnx_sha256": "f" * 64}, "is of ONNX file ffffffffffff..., the export record's is "),
        (AccuracyRecord, {"onnx_sha256": "f" * 64}, "is of ONNX file ffffffffffff..., the export record's is "),
    ],
)
def test_a_record_made_from_something_else_is_orphaned(
    bench: Bench, kind: type[Record], fields: dict[str, Any], reason: str
) -> None:
    bench.change(kind, **fields)
    found = link(bench, kind)
    assert (found.state, found.standing) == ("orphaned", None)
    assert reason in found.reason


def test_what_comes_after_a_record_that_does_not_stand_is_orphaned(bench: Bench) -> None:
    bench.path(TrainRecord).unlink()
    for kind in KINDS[1:]:
        found = link(bench, kind)
        assert (found.state, found.standing) == ("orphaned", None)
        assert "there is no standing" in found.reason


def test_a_replaced_teacher_orphans_every_student_but_not_itself(bench: Bench) -> None:
    for kind in (TrainRecord, ExportRecord):
        bench.change(kind, TEACHER, weights_sha256="c" * 64)
    chain = Chain(bench.plan, bench.results)
    assert chain.train(bench.plan.teacher).state == "stands"
    assert {chain.train(cell).state for cell in bench.plan.cells[1:]} == {"orphaned"}


def test_a_student_stands_while_its_teacher_is_not_on_record(bench: Bench) -> None:
    """It may have been made elsewhere: nothing contradicts it."""
    bench.path(TrainRecord, TEACHER).unlink()
    assert link(bench, TrainRecord).state == "stands"


def test_a_student_of_the_teacher_before_it_was_rounded_stands(bench: Bench) -> None:
    trained = bench.get(TrainRecord, TEACHER)
    rounded = Rounded(dtype="float16", weights_sha256=trained.weights_sha256, accuracy_pct=1.0)
    bench.change(TrainRecord, TEACHER, weights_sha256="c" * 64, rounded_from=rounded)
    assert hashes(bench.get(TrainRecord, TEACHER)) == {"c" * 64, trained.weights_sha256}
    assert link(bench, TrainRecord).state == "stands"


# --- Code ------------------------------------------------------------------------------------------------------------


def test_a_record_that_stands_names_the_plug_ins_whose_code_has_changed(bench: Bench) -> None:
    code = code_of(bench.cell().trained)
    bench.change(TrainRecord, code={**code, "method gram": "0" * 64, "criterion bn": "1" * 64})
    found = link(bench, TrainRecord)
    assert found.state == "stands" and found.standing is not None
    assert set(found.changed) == {"method gram", "criterion bn"}


def test_a_plug_in_that_is_no_longer_involved_is_no_change(bench: Bench) -> None:
    bench.change(TrainRecord, code={**code_of(bench.cell().trained), "method gone": "0" * 64})
    assert link(bench, TrainRecord).changed == ()


def test_an_edited_plug_in_changes_the_records_that_it_made_and_no_other(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real file that is really edited: a loss times ten, and later a comment."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text("TITLE = 'Mine'\ndef loss(x):\n    return x\n")
    experiment = bench.plan.settings.experiment[0].model_copy(update={"kd_method": ["base", "mine:METHOD"]})
    settings = bench.plan.settings.model_copy(update={"experiment": [experiment]})
    plan = make_plan(settings, "lite", experiments=["prune-0.3"])
    for cell in plan.cells[1:]:
        made = identity(plan.profile, cell.id, cell.title, cell.trained)
        save(tmp_path / "results", bench.get(TrainRecord).model_copy(update=made))

    def changed() -> dict[str, tuple[str, ...]]:
        chain = Chain(plan, tmp_path / "results")
        return {cell.id: chain.train(cell).changed for cell in plan.cells[1:]}

    assert set(changed().values()) == {()}
    path.write_text("TITLE = 'Mine'\ndef loss(x):\n    'Says so.'\n    return x  # as it is\n")
    assert set(changed().values()) == {()}
    path.write_text("TITLE = 'Mine'\ndef loss(x):\n    return 10 * x\n")
    assert changed() == {
        cell.id: ("method mine:METHOD",) if cell.kd_method == "mine:METHOD" else () for cell in plan.cells[1:]
    }


# --- Reading ---------------------------------------------------------------------------------------------------------


def counting(bench: Bench) -> tuple[Chain, list[tuple[str, str, str]]]:
    """A chain whose reads are listed."""
    reads: list[tuple[str, str, str]] = []

    def read(kind: type[Record], cell: str, condition: str) -> Record | None:
        reads.append((kind.stage, cell, condition))
        path = bench.path(kind, cell, condition or HEADLINE)
        return load(path, kind) if path.exists() else None

    return Chain(bench.plan, bench.results, read), reads


def test_each_record_is_read_once(bench: Bench) -> None:
    chain, reads = counting(bench)
    for _ in range(2):
        for cell in bench.plan.cells:
            chain.accuracy(cell), chain.export(cell), chain.train(cell)
            chain.latency(cell), chain.latency(cell, HEADLINE), chain.latency(cell, BESIDE)
    assert len(reads) == len(set(reads)) == 5 * len(bench.plan.cells)


def test_what_is_forgotten_is_read_anew_and_nothing_else(bench: Bench) -> None:
    chain, reads = counting(bench)
    cell, other = bench.cell(), bench.cell(OTHER)
    assert chain.accuracy(cell).state == chain.accuracy(other).state == "stands"
    bench.path(AccuracyRecord).unlink()
    assert chain.accuracy(cell).state == "stands"
    reads.clear()
    chain.forget(cell)
    assert chain.accuracy(cell).state == "missing"
    assert chain.accuracy(other).state == "stands"
    assert {name for _, name, _ in reads} == {CELL}


def test_records_may_come_from_elsewhere(bench: Bench) -> None:
    """A merge judges the records of another folder by the same rules."""

    def refuse(kind: type[Record], cell: str, condition: str) -> Record | None:
        raise HarnessError("damaged on the way")

    assert Chain(bench.plan, bench.results, refuse).train(bench.cell()).reason == "damaged on the way"
    assert Chain(bench.plan, bench.results, lambda *_: None).train(bench.cell()).state == "missing"
    wrong = bench.get(ExportRecord)
    assert Chain(bench.plan, bench.results, lambda *_: wrong).train(bench.cell()).state == "foreign"


def test_hashes_are_shortened_for_readers() -> None:
    assert short("0123456789abcdef") == "0123456789ab..."
    assert short(None) == "none"
    assert hashes(None) == set()


# --- Under which instruction set -------------------------------------------------------------------------------------


def test_a_plan_is_as_it_was_measured_target_before_host(tmp_path: Path) -> None:
    plan = plan_for("quick")
    assert plan.settings.bench.isa == ["target"]
    nothing, host, target = (Chain(plan, tmp_path / name) for name in ("nothing", "host", "target"))
    fill_results(plan.as_host(), tmp_path / "host")
    fill_results(plan, tmp_path / "target")
    assert as_measured(plan, [nothing]) is plan
    assert as_measured(plan, [target]) is plan
    for chains in ([host], [nothing, host], [host, target]):
        assert as_measured(plan, chains).settings.bench.isa == ["host"]
    assert as_measured(plan, [nothing, target, host]) is plan
    # What was measured under the host's stands under its own name and key, and under no other.
    under_host = as_measured(plan, [host])
    measured = Chain(under_host, tmp_path / "host")
    assert measured.latency(plan.teacher).state == measured.accuracy(plan.teacher).state == "stands"
    assert Chain(plan, tmp_path / "host").latency(plan.teacher).state == "missing"
    assert Chain(plan, tmp_path / "host").accuracy(plan.teacher).state == "stale"


def test_a_teacher_that_failed_under_the_targets_instruction_set_is_not_hidden_by_the_hosts(tmp_path: Path) -> None:
    plan = plan_for("lite")
    fill_results(plan, tmp_path)
    for name in plan.settings.bench.conditions:
        if "-target-" in name:
            change(tmp_path, plan, TEACHER, LatencyRecord, name, status="failed", failure=DIVERGED)
    assert as_measured(plan, [Chain(plan, tmp_path)]) is plan


def test_a_plan_that_asks_for_the_host_alone_is_as_asked(tmp_path: Path) -> None:
    plan = plan_for("quick").as_host()
    fill_results(plan_for("quick"), tmp_path)
    assert as_measured(plan, [Chain(plan, tmp_path)]) is plan


def test_where_both_are_asked_for_the_hosts_alone_make_a_plan_of_the_host(tmp_path: Path) -> None:
    plan = plan_for("lite")
    assert plan.settings.bench.isa == ["target", "host"]
    fill_results(plan.as_host(), tmp_path)
    # the host's conditions are among those that are asked for, and the headline is not
    assert as_measured(plan, [Chain(plan, tmp_path)]).settings.bench.isa == ["host"]
