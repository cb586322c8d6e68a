import json
import tempfile
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.files import atomic_path, digest, file_sha256, write_text
from harness.plan.specs import code_of, key_of
from harness.store.records import (
    AccuracyRecord,
    Epoch,
    ExportRecord,
    Failure,
    Interval,
    LatencyRecord,
    Process,
    Pruning,
    Record,
    TrainRecord,
    failed,
    find,
    identity,
    load,
    now,
    parity_limit,
    record_path,
    save,
)
from tests.synthetic import plan_for, records_for

KEY = "v2-0123456789abcdef"
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
UNSIGNED, POSITIVE = st.floats(0, allow_infinity=False), st.floats(0, allow_infinity=False, exclude_min=True)
PERCENT = st.floats(0, 100)
WHOLE, COUNTS = st.integers(0, 2**53), st.integers(1, 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | COUNTS | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(st.text(max_size=5), JSON, max_size=4)
DIGESTS = st.dictionaries(st.text(max_size=5), st.text("0123456789abcdef", max_size=5), max_size=2)


def records(kind: type[Record], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    common = {
        "cell": st.just("p0.3-bn-gram-s0"),
        "title": st.text(max_size=20),
        "profile": st.just("quick"),
        "key": st.text("0123456789abcdef", min_size=16, max_size=16).map("v2-".__add__),
        "spec": TABLES,
        "code": DIGESTS,
        "code_kept": st.lists(DIGESTS, max_size=2),
        "status": st.just("done"),
        "finished_at": st.just("2026-01-01T00:00:00+00:00"),
        "seconds": UNSIGNED,
        "environment": TABLES,
    }
    return st.builds(kind, **{**common, **fields})


def ordered(numbers: st.SearchStrategy[Any], *names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Fields whose values do not fall in this order."""
    return st.lists(numbers, min_size=len(names), max_size=len(names)).map(
        lambda values: dict(zip(names, sorted(values), strict=True))
    )


INTERVALS = ordered(NUMBERS, "low", "value", "high").map(lambda values: Interval(**values))
PROCESSES = st.builds(
    lambda percentiles, with_p90, **fields: Process(
        **fields, **(percentiles if with_p90 else {**percentiles, "p90_ms": None})
    ),
    ordered(POSITIVE, "low_ms", "median_ms", "p90_ms"),
    st.booleans(),
    block=WHOLE,
    order=WHOLE,
    first_inference_ms=POSITIVE,
    warmup_rounds=WHOLE,
    rounds=COUNTS,
    cpus=st.lists(WHOLE, max_size=3),
    peak_rss_bytes=WHOLE,
    involuntary_switches=WHOLE,
    distinct_inputs=COUNTS,
)
CONDITIONS = st.sampled_from(["onnxruntime-1.16.0-host-threads-1", "onnxruntime-current-host-threads-all"])
PRUNINGS = st.builds(
    lambda channels, ranked, params, macs, **fields: Pruning(**channels, **ranked, **params, **macs, **fields),
    *(ordered(COUNTS, f"{what}_after", f"{what}_before") for what in ("channels", "ranked", "params", "macs")),
    amount=st.floats(0, 1, exclude_min=True, exclude_max=True),
    kept_layers=st.lists(st.text(max_size=5), max_size=3),
    accuracy_before_calibration_pct=PERCENT,
    accuracy_after_pct=PERCENT,
)
EPOCHS = st.builds(Epoch, phase=st.text(max_size=5), loss=NUMBERS, lr=UNSIGNED, images_per_s=UNSIGNED)
ANY_RECORD = st.one_of(
    records(
        TrainRecord,
        accuracy_pct=st.none() | PERCENT,
        widths=st.none() | st.dictionaries(st.text(max_size=5), COUNTS, max_size=3),
        pruning=st.none() | PRUNINGS,
        epochs=st.lists(EPOCHS, max_size=3),
    ),
    records(ExportRecord, onnx_bytes=st.none() | COUNTS, parity_max_abs_diff=st.none() | UNSIGNED),
    records(
        LatencyRecord,
        condition=CONDITIONS,
        onnx_sha256=st.text(max_size=5),
        runtime=st.text(max_size=5),
        threads=WHOLE,
        latency_ms=st.none() | INTERVALS,
        processes=st.lists(PROCESSES, max_size=2),
        control_ratio=st.none() | INTERVALS,
        control=st.lists(PROCESSES, max_size=2),
        session=TABLES,
        warnings=st.lists(st.text(max_size=5), max_size=2),
    ),
    records(AccuracyRecord, onnx_sha256=st.text(max_size=5), runtime=st.text(max_size=5), correct=st.none() | WHOLE),
)


def accuracy(**changes: Any) -> AccuracyRecord:
    fields: dict[str, Any] = {
        "cell": "p0.3-bn-gram-s0",
        "title": "P(0.3_BN)_KD(3)_SEED(0)",
        "profile": "quick",
        "key": KEY,
        "spec": {"kind": "accuracy", "engine": "onnxruntime-1.16.0", "threads": 1, "parent": "v2-0"},
        "status": "done",
        "finished_at": now(),
        "seconds": 1.5,
        "environment": {"numpy": "1.26.4"},
        "onnx_sha256": "ab",
        "runtime": "onnxruntime 1.16.0",
        "accuracy_pct": 55.5,
        "correct": 5550,
        "images": 10_000,
    }
    return AccuracyRecord(**{**fields, **changes})


# --- One record ------------------------------------------------------------------------------------------------------


@given(record=ANY_RECORD)
def test_what_is_saved_is_what_is_loaded(tmp_path_factory: pytest.TempPathFactory, record: Record) -> None:
    results = tmp_path_factory.getbasetemp() / "round-trip"
    path = save(results, record)
    condition = record.condition if isinstance(record, LatencyRecord) else ""
    assert path == record_path(results, "quick", record.stage, "p0.3-bn-gram-s0", condition)
    assert load(path, type(record)) == record
    again = path.read_bytes()
    save(results, load(path, type(record)))
    assert path.read_bytes() == again


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        (AccuracyRecord, "accuracy_pct", 100.1),
        (AccuracyRecord, "accuracy_pct", float("nan")),
        (AccuracyRecord, "images", 0),
        (AccuracyRecord, "seconds", -1.0),
        (AccuracyRecord, "finished_at", "2026-01-02"),
        (TrainRecord, "macs", -1),
        (TrainRecord, "pruning.accuracy_after_pct", float("inf")),
        (TrainRecord, "pruning.params_after", 10**12),
        (ExportRecord, "parity_max_abs_diff", float("nan")),
        (LatencyRecord, "ratio_to_teacher.low", 7.0),
        (LatencyRecord, "processes.0.low_ms", 1e9),
        (LatencyRecord, "processes.0.first_inference_ms", 0.0),
    ],
)
def test_a_figure_that_nothing_can_have_is_no_record(
    tmp_path: Path, kind: type[Record], place: str, value: float | str
) -> None:
    plan = plan_for("quick")
    (record,) = (one for one in records_for(plan, plan.cells[1]) if type(one) is kind)
    path = save(tmp_path, record)
    document = json.loads(path.read_text())
    *parents, name = (int(part) if part.isdigit() else part for part in place.split("."))
    table = reduce(lambda found, part: found[part], parents, document)
    assert name in table
    table[name] = value
    path.write_text(json.dumps(document))
    with pytest.raises(
        HarnessError, match=rf"not a {kind.stage} record \({parents[0] if parents else name}.*delete it"
    ):
        load(path, kind)


def latency(condition: str) -> LatencyRecord:
    process = Process(
        block=0,
        order=1,
        first_inference_ms=1e-17,
        warmup_rounds=1,
        rounds=64,
        low_ms=0.1 + 0.2,
        median_ms=1 / 3,
        cpus=[0, 1],
        peak_rss_bytes=1,
        involuntary_switches=0,
        distinct_inputs=64,
    )
    common = accuracy().model_dump(include=set(Record.model_fields) | {"onnx_sha256", "runtime"})
    return LatencyRecord(**common, condition=condition, threads=2, processes=[process])


def test_numbers_are_stored_unrounded_and_lists_of_them_on_one_line(tmp_path: Path) -> None:
    text = save(tmp_path, latency("onnxruntime-1.16.0-host-threads-1")).read_text()
    for part in ('"low_ms": 0.30000000000000004', '"median_ms": 0.3333333333333333', "1e-17", '"cpus": [0, 1]'):
        assert part in text


def test_latencies_under_two_conditions_are_two_records(tmp_path: Path) -> None:
    one, other = latency("onnxruntime-1.16.0-host-threads-1"), latency("onnxruntime-current-host-threads-all")
    for record in (one, other):
        save(tmp_path, record)

    def found(condition: str) -> LatencyRecord | None:
        return find(tmp_path, "quick", one.cell, one.key, LatencyRecord, condition)

    assert found(one.condition) == one
    assert found(other.condition) == other
    assert found("onnxruntime-current-host-threads-1") is None


def test_a_record_is_readable_by_others(tmp_path: Path) -> None:
    assert save(tmp_path, accuracy()).stat().st_mode & 0o777 == 0o644


@given(length=st.integers(0, 10_000))
def test_a_truncated_record_is_an_error_that_names_it(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "truncated"
    path = save(folder, accuracy())
    whole = path.read_bytes().rstrip()
    path.write_bytes(whole[: length % len(whole)])
    with pytest.raises(HarnessError) as raised:
        load(path, AccuracyRecord)
    assert str(path) in str(raised.value)
    assert "delete it to have it made again" in str(raised.value)


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        accuracy().model_dump_json().replace("55.5", '"many"').encode(),
        accuracy().model_dump_json().replace('"status":"done"', '"status":"maybe"').encode(),
        accuracy().model_dump_json().replace('"cell"', '"shell"').encode(),
    ],
)
def test_a_foreign_record_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    path = record_path(tmp_path, "quick", "accuracy", "p0.3-bn-gram-s0")
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    with pytest.raises(HarnessError, match=r"not an? accuracy record"):
        load(path, AccuracyRecord)
    assert find(tmp_path, "quick", "p0.3-bn-gram-s0", KEY, AccuracyRecord) is None, "to be made again"


@pytest.mark.parametrize("field", ["cell", "profile"])
def test_a_record_of_another_cell_or_profile_is_not_found_in_its_place(tmp_path: Path, field: str) -> None:
    path = save(tmp_path, accuracy())
    path.write_text(path.read_text().replace(f'"{field}": "', f'"{field}": "another-'))
    assert find(tmp_path, "quick", "p0.3-bn-gram-s0", KEY, AccuracyRecord) is None


def test_a_record_of_another_stage_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, accuracy())
    with pytest.raises(HarnessError, match="not a train record"):
        load(path, TrainRecord)


@pytest.mark.parametrize("version", [1, 3, None, "2"])
@pytest.mark.parametrize(
    ("kind", "condition"),
    [(AccuracyRecord, ""), (LatencyRecord, "onnxruntime-1.16.0-host-threads-1"), (TrainRecord, "")],
)
def test_a_record_of_another_schema_is_one_line_that_says_what_to_do(
    tmp_path: Path, version: Any, kind: type[Record], condition: str
) -> None:
    path = record_path(tmp_path, "quick", kind.stage, "p0.3-bn-gram-s0", condition)
    path.parent.mkdir(parents=True)
    # as the harness before wrote it, with fields that there are no more
    path.write_text(json.dumps({"schema_version": version, "cell": "p0.3-bn-gram-s0", "key": "0" * 16, "settings": {}}))
    with pytest.raises(HarnessError) as raised:
        load(path, kind)
    assert str(raised.value) == (
        f"{path}: a record of schema {version}, and this harness writes 2; "
        f"move {tmp_path}/quick away and make its models again, or use the harness that wrote it"
    )


def test_a_missing_record_and_a_folder_in_its_place_are_errors(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no such record"):
        load(tmp_path / "gone.json", AccuracyRecord)
    with pytest.raises(HarnessError, match="cannot be read: it is a folder"):
        load(tmp_path, AccuracyRecord)


# --- What a record is of ---------------------------------------------------------------------------------------------


def test_a_record_says_which_stage_it_is_of_and_by_which_code() -> None:
    plan = plan_for("lite")
    cell = next(cell for cell in plan.cells if cell.id == "p0.3-bn-gram-s0")
    train = identity("lite", cell.id, cell.title, cell.trained)
    assert (train["key"], train["spec"], train["code"]) == (
        cell.trained.key,
        cell.trained.document,
        code_of(cell.trained),
    )
    assert key_of(train["spec"]) == train["key"]
    for stage in (cell.spec, plan.latency(cell, plan.settings.bench.conditions[0]), plan.accuracy(cell)):
        fields = identity("lite", cell.id, cell.title, stage)
        assert fields["spec"]["parent"] == (cell.trained.key if stage is cell.spec else cell.spec.key)
        assert key_of(fields["spec"]) == fields["key"] == stage.key


def test_settings_without_a_value_survive_storage(tmp_path: Path) -> None:
    """A record leaves out figures that it does not have, but its key is a hash of all settings, so none may be lost."""
    record = accuracy(spec={"kind": "pruned", "seed": None, "nested": {"checkpoint": None}, "list": [None]})
    assert load(save(tmp_path, record), AccuracyRecord).spec == record.spec


@pytest.mark.parametrize(("largest", "limit"), [(0.0, 1e-3), (1.0, 1e-3), (20.0, 0.02), (400.0, 0.4)])
def test_the_parity_gate_is_relative_to_the_largest_logit_but_not_to_tiny_ones(largest: float, limit: float) -> None:
    assert parity_limit(largest) == pytest.approx(limit)


# --- Found, stale, failed --------------------------------------------------------------------------------------------


def test_a_record_counts_only_under_its_own_key(tmp_path: Path) -> None:
    def found(key: str) -> AccuracyRecord | None:
        return find(tmp_path, "quick", "p0.3-bn-gram-s0", key, AccuracyRecord)

    assert found(KEY) is None
    record = accuracy()
    save(tmp_path, record)
    assert found(KEY) == record
    assert found("v2-fedcba9876543210") is None


def test_a_failed_record_carries_its_reason_and_no_figures(tmp_path: Path) -> None:
    fields = accuracy().model_dump(include={"cell", "title", "profile", "key", "spec", "seconds", "environment"})
    failure = Failure(kind="parity", message="top-1 agrees on 90 % of 256 images\nof 100 %")
    record = failed(AccuracyRecord, failure, **fields, onnx_sha256="ab", runtime="onnxruntime 1.16.0")
    save(tmp_path, record)
    found = find(tmp_path, "quick", record.cell, record.key, AccuracyRecord)
    assert found == record
    assert found is not None and found.status == "failed" and found.failure == failure
    assert found.accuracy_pct is None


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("{cwd}/artifacts/lite/bench/a.log: see there", "artifacts/lite/bench/a.log: see there"),
        ("/home/me/study/model.onnx: cut short", "model.onnx: cut short"),
        ("Load from '/tmp/x-1/model.onnx' failed (/opt/lib/y.so)", "Load from 'model.onnx' failed (y.so)"),
        ("30 images/s, 3/4, see https://onnx.ai/docs/x", "30 images/s, 3/4, see https://onnx.ai/docs/x"),
        ("see artifacts/lite/failure.txt", "see artifacts/lite/failure.txt"),
    ],
)
def test_a_failure_names_no_folder_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kept: str
) -> None:
    (folder := tmp_path / "work [gpu]").mkdir()
    monkeypatch.chdir(folder)
    failure = Failure(kind="error", message=said.format(cwd=folder))
    assert failure.message == kept
    assert Failure.model_validate_json(failure.model_dump_json()) == failure


# --- Atomic files ----------------------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "model.onnx"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists()
        assert temporary.suffix == ".onnx"  # numpy and torch look at it
    assert path.read_bytes() == b"whole"
    assert [found.name for found in path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "record.json"
    write_text(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["record.json"]


def test_while_it_is_written_the_old_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_results_folder_that_cannot_be_one_is_a_clear_error(tmp_path: Path) -> None:
    """A file in its place stops even root, whom permissions would not stop."""
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(HarnessError, match=r"results/quick/accuracy: cannot write here"):
        save(tmp_path / "results", accuracy())
    assert [found.name for found in tmp_path.iterdir()] == ["results"]


def test_an_unwritable_folder_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(HarnessError, match=r"cannot write here \(Permission denied\); make the folder writable"):
        save(tmp_path, accuracy())


# --- Digests ---------------------------------------------------------------------------------------------------------


def reversed_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_order(value[key]) for key in reversed(value)}
    return [reversed_order(item) for item in value] if isinstance(value, list) else value


@given(value=TABLES)
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(value) == digest(reversed_order(value))


@given(value=TABLES)
def test_a_digest_survives_storage(value: dict[str, Any]) -> None:
    """The settings in a record still hash to the record's key."""
    assert digest(json.loads(json.dumps(value))) == digest(value)


@given(one=TABLES, other=TABLES)
def test_different_values_have_different_digests(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (digest(one) == digest(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def test_the_form_that_is_hashed_is_fixed() -> None:
    """Keys of records made years apart have to agree, so this value may never change."""
    assert digest({"b": [1, 0.1, "×"], "a": None, "c": True}, 16) == "36eff231a523b6fc"


def test_values_without_a_json_form_have_no_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"lr": float("nan")})


def test_a_files_hash_is_over_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert file_sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_now_is_utc_to_the_second() -> None:
    assert now().endswith("+00:00")
    assert "." not in now()
