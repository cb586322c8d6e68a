import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report_page import breaks, rows_traceable_pct
from harness.plan.planning import Plan
from harness.reporting import rows, tables
from harness.reporting.page.content import content, in_a_sentence
from harness.reporting.reading import Reading, read_rows
from harness.store.records import AccuracyRecord, LatencyRecord
from tests.synthetic import change, fill_results, keep_predictions, path_of, plan_for

FAILED = "p0.3-gn-gram-s0"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for("reference")


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results that are there, answers included."""
    results = tmp_path_factory.mktemp("whole")
    fill_results(plan, results)
    keep_predictions(results, plan)
    return results


@pytest.fixture(scope="module")
def document(plan: Plan, whole: Path) -> dict[str, Any]:
    return content(Reading(plan, whole))


@pytest.fixture
def partial(plan: Plan, tmp_path: Path) -> Path:
    """Results that lack a model, and have another that fails a check."""
    fill_results(plan, tmp_path, skip=["p0.3-bn-gram-s0"])
    change(tmp_path, plan, FAILED, AccuracyRecord, accuracy_pct=12.34)
    return tmp_path


def experiment(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in document["experiments"] if one["name"] == name)


def table(document: dict[str, Any], name: str, shown: str = "models") -> dict[str, Any]:
    return next(one for one in experiment(document, name)["tables"] if one["name"] == shown)


def column(shown: dict[str, Any], name: str) -> list[Any]:
    at = [one["name"] for one in shown["columns"]].index(name)
    return [row["cells"][at][1] if len(row["cells"][at]) > 1 else None for row in shown["rows"]]


def test_it_is_json_and_the_same_each_time(plan: Plan, whole: Path, document: dict[str, Any]) -> None:
    assert json.dumps(content(Reading(plan, whole)), allow_nan=False) == json.dumps(document, allow_nan=False)


def test_a_plan_of_one_experiment_gives_the_page_of_the_profile(whole: Path, document: dict[str, Any]) -> None:
    assert content(Reading(plan_for("reference", experiments=["prune-0.4"]), whole)) == document


def test_every_experiment_has_its_tables(document: dict[str, Any]) -> None:
    names = {one["name"]: [shown["name"] for shown in one["tables"]] for one in document["experiments"]}
    assert names == {
        "prune-0.3": ["models", "conditions", "study"],
        "prune-0.4": ["models", "conditions", "study"],
        "seeds": ["models", "means", "conditions", "study", "study-means"],
    }


def test_texts_are_those_of_the_markdown_tables(plan: Plan, whole: Path, document: dict[str, Any]) -> None:
    columns = tables.columns(read_rows(plan, plan.tables[0], whole))
    shown = table(document, "prune-0.3")
    texts = {one["header"]: [row["cells"][at][0] for row in shown["rows"]] for at, one in enumerate(shown["columns"])}
    assert texts == {one.header: one.cells for one in columns}


def test_figures_are_those_of_the_records(plan: Plan, whole: Path, document: dict[str, Any]) -> None:
    found = read_rows(plan, plan.tables[0], whole)
    shown = table(document, "prune-0.3")
    assert column(shown, "accuracy_pct") == [row.accuracy_pct for row in found]
    assert column(shown, "latency_ms") == [row.latency_ms for row in found]
    assert column(shown, "parameters") == [row.params for row in found]
    at = [one["name"] for one in shown["columns"]].index("latency_ratio")
    ratios = [row["cells"][at] for row in shown["rows"]]
    assert [tuple(one[2:]) for one in ratios] == [row.ratio.bounds for row in found if row.ratio]


def test_models_on_the_front_have_a_star(document: dict[str, Any]) -> None:
    for name, shown in (("prune-0.3", "models"), ("seeds", "means")):
        ranks = column(table(document, name, shown), "pareto_rank")
        at = [one["name"] for one in table(document, name, shown)["columns"]].index("pareto_rank")
        texts = [row["cells"][at][0] for row in table(document, name, shown)["rows"]]
        assert [rank == 1 for rank in ranks] == ["★" in text for text in texts] and 1 in ranks


def test_the_picture_has_a_point_for_each_model_with_intervals_both_ways(document: dict[str, Any]) -> None:
    points = experiment(document, "prune-0.3")["picture"]["data"]["values"]
    students = [point for point in points if not point["teacher"]]
    assert len(students) == 9 and len(points) == 10
    assert all({"ratio_low", "ratio_high", "accuracy_low", "accuracy_high"} <= point.keys() for point in students)
    assert sum(point["best"] for point in points) == 1 and sum(point["front"] for point in points) >= 1


def test_seeds_are_one_point_for_each_model_with_its_trainings_beside_it(document: dict[str, Any]) -> None:
    points = experiment(document, "seeds")["picture"]["data"]["values"]
    assert sorted(len(point["models"]) for point in points) == [1] * 16 + [5] * 3


def test_every_figure_is_traceable(document: dict[str, Any]) -> None:
    assert rows_traceable_pct(document) == 100


@pytest.mark.parametrize("stage", ["train", "export", "latency", "accuracy"])
def test_a_hash_that_does_not_fit_is_a_break(document: dict[str, Any], stage: str) -> None:
    spoilt = json.loads(json.dumps(document))
    record = spoilt["models"][FAILED]["records"][stage]
    spoilt["shared"]["other"] = dict.fromkeys(spoilt["shared"][record["hashes"]], "00" * 32)
    record["hashes"] = "other"
    assert 90 < rows_traceable_pct(spoilt) < 100


def test_a_setting_that_is_not_the_keys_is_a_break(document: dict[str, Any]) -> None:
    spoilt = json.loads(json.dumps(document))
    spoilt["shared"][spoilt["settings"][spoilt["models"][spoilt["teacher"]]["key"]]["own"]]["opset"] = 1
    shown = table(spoilt, "prune-0.3")
    assert any("settings" in reason for reason in breaks(spoilt, shown, shown["rows"][0]))


def test_a_missing_model_is_a_row_and_a_failing_one_says_what_to_do(plan: Plan, partial: Path) -> None:
    document = content(Reading(plan, partial))
    found = experiment(document, "prune-0.3")
    assert len(found["tables"][0]["rows"]) == 10
    checks = {cell: [one["check"] for one in findings] for cell, findings in found["findings"].items()}
    assert "missing-record" in checks["p0.3-bn-gram-s0"]
    assert "false-figure" in checks[FAILED]
    assert all(one["remedy"] for findings in found["findings"].values() for one in findings)
    assert rows_traceable_pct(document) == 100
    assert any("no train record" in text for text in found["warnings"])
    assert found["says"].endswith("of 9 models are on the front. 1 more has no figures yet.")


def test_nothing_measured_yet_is_a_page_without_a_picture(plan: Plan, tmp_path: Path) -> None:
    document = content(Reading(plan, tmp_path))
    assert [one["picture"] for one in document["experiments"]] == [None] * 3
    assert document["machines"] == [] and document["settings"]
    assert in_a_sentence(document) == "Experiment 1: prune amount 0.3. No model has both accuracy and latency yet."


def test_what_it_says_is_of_the_first_table_with_figures(plan: Plan, tmp_path: Path) -> None:
    first = [cell.id for cell in plan.tables[0].cells if not cell.is_teacher]
    fill_results(plan, tmp_path, skip=first)
    said = in_a_sentence(content(Reading(plan, tmp_path)))
    assert said.startswith("Experiment 2: prune amount 0.4. Most accuracy per latency: P(0.4_")
    assert "of the teacher's latency. " in said


def test_host_and_target_are_side_by_side(document: dict[str, Any]) -> None:
    machines = {fact: (host, target) for fact, host, target in document["machines"]}
    assert machines["Processor"] == ("Some CPU @ 2.00GHz", "Intel Core i9-9900K")
    assert machines["Physical cores"] == ("2", "8")


def test_no_path_of_this_machine_is_in_it(document: dict[str, Any], whole: Path) -> None:
    assert str(whole) not in json.dumps(document)


def test_a_latency_that_does_not_stand_is_no_figure(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, FAILED, LatencyRecord, onnx_sha256="00" * 32)
    assert path_of(tmp_path, plan, FAILED, LatencyRecord).is_file()
    document = content(Reading(plan, tmp_path))
    assert "latency" not in document["models"][FAILED]["records"]
    assert rows_traceable_pct(document) == 100


def test_of_a_very_long_table_the_first_models_are_shown_and_the_page_says_so(
    plan: Plan, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows.first_models, "__defaults__", (4,))
    document = content(Reading(plan, partial))
    found = experiment(document, "prune-0.3")
    assert found["warnings"][0] == "The page shows the first 4 rows; 6 more are in tables/prune-0.3.csv and .json."
    shown = {row["models"][0] for row in found["tables"][0]["rows"]}
    assert len(shown) == 4 == len(found["picture"]["data"]["values"]) and plan.teacher.id in shown
    assert found["says"].endswith("of 9 models are on the front. 1 more has no figures yet."), "the sentence is of all"
    assert FAILED not in shown and found["findings"] == {}
    assert shown <= document["models"].keys() and len(document["models"]) < len(plan.cells)
    assert rows_traceable_pct(document) == 100
