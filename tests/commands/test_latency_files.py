"""Any ONNX files, measured for real, for milliseconds each."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from harness.bench import latency
from harness.bench.job import Assignment
from harness.commands import latency_files
from harness.commands.latency_document import LatencyDocument, read_baseline
from harness.commands.latency_files import Request, measure_files
from harness.commands.latency_gate import GATE, verdict
from harness.commands.latency_inputs import Wanted
from harness.commands.latency_words import as_text, is_same
from harness.errors import HarnessError
from harness.plan.bench_settings import engine_version
from harness.store.records import Failure, Interval
from tests.bench_kit import OLD_ENGINE, OLD_PYTHON, machine
from tests.onnx_zoo import DIMS, TOO_NEW, network, two_inputs, with_weights_as_inputs, write_all

HERE = "onnxruntime"


@pytest.fixture
def one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process for each file has to do."""
    monkeypatch.setattr(latency_files, "LEAST_BLOCKS", 1)


def request_for(*files: Path, **changes: Any) -> Request:
    usual: dict[str, Any] = {"engines": [HERE], "minutes": 1e-6, "sampling_s": 0.001, "blocks": 3}
    return Request(files=files, **{**usual, **changes})


def saved(path: Path, model: ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


# --- Real files, real processes --------------------------------------------------------------------------------------


NO_OLD_ENGINE = pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
# of the kinds that another version of an engine may see otherwise
FOR_ALL = ("fp32", "int8 QDQ", "external data", "opset 11", "opset 19", *TOO_NEW)


@pytest.mark.usefixtures("one_block")
def test_every_kind_of_file_is_measured(tmp_path: Path) -> None:
    files = write_all(tmp_path)
    found = measure_files(request_for(*files.values(), inputs=Wanted(dims=DIMS)))
    by_kind = dict(zip(files, found.files, strict=True))
    assert len(by_kind) >= 15
    for one in found.files:
        (timing,) = one.timings
        assert timing.failure is None, one.title
        assert timing.latency_ms is not None and timing.latency_ms.value > 0
        assert timing.ratio is not None
    assert by_kind["two inputs, two outputs"].output_shapes == [[1, 3, 1, 1]] * 2
    assert by_kind["fixed batch"].output_shapes == [[4, 10]]
    assert by_kind["token ids, mask, truth values"].output_shapes == [[1, 5, 4]]
    said = by_kind["initializers that are inputs"].timings[0].warnings
    assert any("appears in graph inputs" in text and "more like it" in text for text in said)
    text = as_text(found)
    assert "warning: 11.onnx: Initializer kernel appears in graph inputs" in text


@NO_OLD_ENGINE
@pytest.mark.usefixtures("one_block")
def test_an_older_engine_measures_what_it_is_not_too_old_for(tmp_path: Path) -> None:
    written = write_all(tmp_path)
    files = {kind: written[kind] for kind in FOR_ALL}
    found = measure_files(request_for(*files.values(), engines=[OLD_ENGINE]))
    failed = {kind for kind, one in zip(files, found.files, strict=True) if one.timings[0].failure}
    assert failed == set(TOO_NEW)
    assert as_text(found).count("Unsupported model IR version: 10") == len(TOO_NEW)


def test_the_first_file_is_measured_twice_and_what_is_shown_can_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = saved(tmp_path / "a.onnx", network(size=16)), saved(tmp_path / "b.onnx", network(size=64))
    before = sorted(tmp_path.rglob("*"))
    found = measure_files(request_for(first, second, seed=7))
    assert sorted(tmp_path.rglob("*")) == before
    a, b = (one.timings[0] for one in found.files)
    assert len(a.processes) == len(a.again) == len(b.processes) == found.blocks == latency_files.LEAST_BLOCKS
    assert a.ratio == Interval(value=1, low=1, high=1)
    assert a.again_ratio is not None and b.ratio is not None
    assert b.ratio.value > 1.5, "an image of 64 pixels takes longer than one of 16"
    (condition,) = found.conditions
    assert condition.threads == len(condition.cpus) == 1
    assert condition.session["intra_op_num_threads"] == 1
    assert all(process.cpus == condition.cpus for process in (*a.processes, *a.again, *b.processes))
    assert all(process.distinct_inputs == process.rounds or process.distinct_inputs >= 4 for process in b.processes)
    assert (found.seed, found.settled) == (7, False)
    lines = as_text(found).splitlines()
    assert lines[-1] == found.sentence
    # three processes on a busy machine may show no difference
    apart = f"b.onnx takes {b.ratio.value:.2f} times as long as a.onnx ["
    alike = f"b.onnx and a.onnx cannot be told apart (ratio {b.ratio.text('.3f')})"
    assert found.sentence.startswith(alike if is_same(b.ratio, abs(a.again_ratio.value - 1)) else apart)
    assert found.sentence.endswith(f"1 thread, {condition.runtime}, on {found.machine['cpu']}")
    assert any(line.startswith("a.onnx, again") for line in lines)
    assert "time is up" in capsys.readouterr().err
    path = tmp_path / "old.json"
    path.write_text(found.model_dump_json())
    assert read_baseline(path) == found


def test_one_file_alone_has_a_latency_and_nothing_to_be_compared_with(tmp_path: Path) -> None:
    found = measure_files(request_for(saved(tmp_path / "a.onnx", network()), threads=["all"]))
    (one,) = found.files
    assert one.timings[0].latency_ms is not None
    assert (one.timings[0].ratio, one.timings[0].again) == (None, [])
    assert found.sentence.startswith("a.onnx takes ")
    assert "Ratio" not in as_text(found)


def hungry() -> ModelProto:
    """Its output would fill 4 TiB, which no header says."""
    nodes = [
        helper.make_node("Cast", ["input"], ["size"], to=TensorProto.INT64),
        helper.make_node("Mul", ["size", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "many"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["output"]),
    ]
    weights = [numpy_helper.from_array(np.array([number]), name) for name, number in (("nothing", 0), ("many", 2**40))]
    values = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n"]),
    ]
    graph = helper.make_graph(nodes, "hungry", values[:1], values[1:], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def not_a_number() -> ModelProto:
    model = network()
    model.graph.initializer[1].raw_data = np.full(8, np.nan, np.float32).tobytes()
    return model


def of_the_future() -> ModelProto:
    model = network()
    model.opset_import[0].version = 99
    return model


def unknown_operator() -> ModelProto:
    model = network()
    model.graph.node[1].op_type = "Nonsense"
    return model


@pytest.mark.usefixtures("one_block")
def test_files_that_cannot_be_run_are_named_with_the_reason_and_the_others_are_measured(tmp_path: Path) -> None:
    bad = {"hungry": hungry, "nan": not_a_number, "future": of_the_future, "unknown": unknown_operator}
    files = [saved(tmp_path / "sound.onnx", network()), saved(tmp_path / "pair.onnx", two_inputs())]
    files += [saved(tmp_path / f"{name}.onnx", make()) for name, make in bad.items()]
    found = measure_files(request_for(*files))
    failures = {Path(one.file).stem: one.timings[0].failure for one in found.files}
    assert failures.pop("sound") is None and failures.pop("pair") is None
    messages = {name: failure.message for name, failure in failures.items() if failure}
    assert messages.keys() == bad.keys()
    assert failures["hungry"] is not None and failures["hungry"].kind == "out-of-memory"
    assert "output 1 of 1 holds values that are not numbers (NaN)" in messages["nan"]
    assert "opset" in messages["future"].lower()
    assert "Nonsense" in messages["unknown"]
    assert not any("harness-latency-" in message for message in messages.values()), "no log that is gone"
    assert "could not be measured" in found.sentence
    assert "failed: nan.onnx: " in as_text(found)


def test_without_the_first_file_nothing_is_measured_on(tmp_path: Path) -> None:
    good, bad = saved(tmp_path / "good.onnx", network()), saved(tmp_path / "bad.onnx", not_a_number())
    with pytest.raises(HarnessError, match=r"^\S*bad\.onnx: output 1 of 1 holds values that are not numbers"):
        measure_files(request_for(bad, good))


@NO_OLD_ENGINE
@pytest.mark.usefixtures("one_block")
def test_several_engines_have_a_table_each(tmp_path: Path) -> None:
    files = [saved(tmp_path / name, network()) for name in ("a.onnx", "b.onnx")]
    found = measure_files(request_for(*files, engines=[OLD_ENGINE, HERE]))
    assert [one.runtime for one in found.conditions] == [
        engine_version(OLD_ENGINE),
        engine_version("onnxruntime-current"),
    ]
    text = as_text(found)
    assert all(f"1 thread, {one.runtime}\n" in text for one in found.conditions)
    assert f", {found.conditions[0].runtime}, " in found.sentence


# --- What does not fit -----------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_known_is_named_with_those_that_are(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.onnx", network())
    with pytest.raises(HarnessError, match=r"--engine tensorrt: unknown; allowed: .*onnxruntime-1\.16\.0.*onnxruntime"):
        measure_files(request_for(file, engines=["tensorrt"]))


def test_more_threads_than_cores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"--threads 4096: this process may use \d+ physical cores"):
        measure_files(request_for(saved(tmp_path / "a.onnx", network()), threads=[4096]))


def test_a_target_that_is_not_known_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"unknown CPU 'i386'; allowed: i9-9900K"):
        measure_files(request_for(saved(tmp_path / "a.onnx", network()), target="i386"))


def test_all_threads_are_those_of_the_machine_unless_there_is_a_target() -> None:
    picture = machine([[cpu] for cpu in range(12)])
    request = request_for(Path("a.onnx"), threads=["all"])
    assert latency_files.bench_settings(request, picture).threads == [12]


def test_files_of_one_name_are_told_apart() -> None:
    titles = latency_files._titles
    assert titles([Path("x/a.onnx"), Path("y/b.onnx")]) == ["a.onnx", "b.onnx"]
    assert titles([Path("x/a.onnx"), Path("y/a.onnx")]) == ["x/a.onnx", "y/a.onnx"]
    assert titles([Path("a.onnx"), Path("a.onnx"), Path("a.onnx")]) == ["a.onnx", "a.onnx (2)", "a.onnx (3)"]


# --- The gate --------------------------------------------------------------------------------------------------------

ratios = (
    st.tuples(*[st.floats(0.5, 2)] * 3)
    .map(sorted)
    .map(lambda found: Interval(low=found[0], value=found[1], high=found[2]))
)


@given(ratios, st.floats(0.5, 2), st.floats(0.1, 50), st.none() | ratios)
def test_a_file_is_beyond_the_limit_only_where_its_whole_interval_is(
    found: Interval, most: float, precision: float, noise: Interval | None
) -> None:
    assert found.bounds
    said, (low, high) = verdict(found, most, precision, noise), found.bounds
    if said == "beyond":
        assert low > most
    if high <= most:
        assert said == "within"
    if low > 2 * most and (noise is None or abs(noise.value - 1) < 0.5):
        assert said == "beyond"


def test_an_interval_about_the_limit_is_unclear_unless_it_is_as_narrow_as_was_wanted() -> None:
    def about(low: float, high: float) -> Interval:
        return Interval(low=low, value=(low + high) / 2, high=high)

    assert verdict(about(1.04, 1.06), 1.05, 1.0, None) == "within"
    assert verdict(about(1.00, 1.10), 1.05, 1.0, None) == "unclear"
    assert verdict(about(1.051, 1.07), 1.05, 1.0, None) == "beyond"
    # from too few processes to know
    assert verdict(Interval(value=2.0), 1.05, 1.0, None) == "unclear"
    # the first file differs from itself by more than that
    assert verdict(about(1.051, 1.07), 1.05, 1.0, about(1.0, 1.06)) == "unclear"


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, float]], None]]:
    """Sets how many ms a file's processes say that they took; each takes a second of a clock that only they move."""
    times: dict[str, float] = {}

    def measure(_: str, given: Assignment, *__: object) -> dict[str, Any] | Failure:
        slower = 1 + 0.001 * (given.block % 3)
        info = {"first_inference_ms": 1.0, "warmup_rounds": 5, "rounds": 64, "distinct_inputs": 64, "cpus": given.cpus}
        info |= {"involuntary_switches": 0, "peak_rss_bytes": 1, "output_shapes": [[1, 10]]}
        shown = {"way": "none", "cpuid": [], "numpy": [], "engine": {}}
        samples = [times[given.model.title] * slower / 1000] * 64
        return {"stats": {"data": samples}, "extra_info": {**info, "instruction_set": shown}, "said": []}

    monkeypatch.setattr(latency, "measure", measure)
    yield times.update


def compared(tmp_path: Path, *names: str, **changes: Any) -> LatencyDocument:
    files = [saved(tmp_path / name, network()) for name in names]
    return measure_files(request_for(*files, minutes=1.0, blocks=5, **changes))


Took = Callable[[dict[str, float]], None]


def test_the_limit_is_for_every_file_but_the_first(tmp_path: Path, took: Took) -> None:
    took({"a.onnx": 2.0, "b.onnx": 2.2, "c.onnx": 2.04})
    found = compared(tmp_path, "a.onnx", "b.onnx", "c.onnx", max_ratio=1.05)
    assert found.settled
    assert found.gate is not None
    assert found.gate.verdicts == {"b.onnx": "beyond", "c.onnx": "within"}
    assert "b.onnx: beyond the limit (1.05 times a.onnx)" in as_text(found)


def test_a_baseline_is_compared_by_what_the_first_file_took_both_times(tmp_path: Path, took: Took) -> None:
    took({"a.onnx": 2.0, "b.onnx": 1.0})
    (tmp_path / "old.json").write_text(compared(tmp_path, "a.onnx", "b.onnx").model_dump_json())
    # the machine is slower today, and so is b beyond that
    took({"a.onnx": 4.0, "b.onnx": 2.4})
    found = compared(tmp_path, "a.onnx", "b.onnx", baseline=tmp_path / "old.json")
    change = found.files[1].timings[0].change
    assert change is not None
    assert change.value == pytest.approx(1.2)
    assert found.gate is not None
    # of the first file there is nothing but its latency to compare
    assert found.gate.verdicts == {"a.onnx": "beyond", "b.onnx": "beyond"}
    assert found.gate.max_ratio == GATE
    assert "Since baseline" in as_text(found)


def test_one_file_is_compared_with_its_own_latency_before(tmp_path: Path, took: Took) -> None:
    took({"a.onnx": 2.0})
    (tmp_path / "old.json").write_text(compared(tmp_path, "a.onnx").model_dump_json())
    found = compared(tmp_path, "a.onnx", baseline=tmp_path / "old.json")
    assert found.gate is not None
    assert found.gate.verdicts == {"a.onnx": "within"}


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("machine.cpu", "Abacus", "its CPU is Abacus, and here it is"),
        ("conditions.0.runtime", "onnxruntime 0.1", "its engine is onnxruntime 0.1"),
        ("conditions.0.threads", 64, "its number of threads is 64"),
        ("conditions.0.target", "i9-9900K", "its instruction set is i9-9900K"),
        ("files.0.title", "other.onnx", "has no file a.onnx; it has other.onnx"),
        ("files.0.inputs.0.shape", [1, 3, 9, 9], "a.onnx had other inputs"),
        ("files.0.params", "many", "not what `harness latency --json` prints"),
    ],
)
def test_a_baseline_of_something_else_is_refused(tmp_path: Path, took: Took, place: str, value: Any, said: str) -> None:
    took({"a.onnx": 2.0})
    document = json.loads(compared(tmp_path, "a.onnx").model_dump_json())
    *path, last = place.split(".")
    part = document
    for name in path:
        part = part[int(name) if name.isdigit() else name]
    part[last] = value
    (tmp_path / "old.json").write_text(json.dumps(document))
    with pytest.raises(HarnessError, match=said):
        compared(tmp_path, "a.onnx", baseline=tmp_path / "old.json")


@pytest.mark.parametrize("content", [None, "", "[]", "[" * 3000, '{"sentence": 1}', "\udcff"])
def test_a_baseline_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(HarnessError, match=r"old\.json: "):
        read_baseline(path)


def test_weights_that_are_inputs_are_no_inputs_to_draw(tmp_path: Path, took: Took) -> None:
    took({"a.onnx": 2.0})
    file = saved(tmp_path / "a.onnx", with_weights_as_inputs())
    found = measure_files(request_for(file, minutes=1.0))
    assert [one.name for one in found.files[0].inputs] == ["input"]


def test_a_number_of_threads_that_is_named_twice_is_measured_once() -> None:
    assert latency_files.bench_settings(request_for(Path("a"), threads=["all", 1]), machine([[0]])).threads == [1]


def test_processes_are_as_short_as_the_time_asks_for() -> None:
    # three blocks of the first file, twice, and the second, for each of two numbers of threads
    request = Request([Path("a"), Path("b")], engines=[HERE], threads=[1, 2], minutes=0.06)
    assert latency_files.bench_settings(request, machine([[0], [1]])).sampling_s == pytest.approx(0.2)
    assert latency_files.bench_settings(replace(request, minutes=2.0), machine([[0], [1]])).sampling_s == 1.0
    alone = latency_files.bench_settings(replace(request, files=[Path("a")], threads=[1]), machine([[0], [1]]))
    assert alone.sampling_s == 1.0
