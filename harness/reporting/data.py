"""A table's figures for programs, as CSV and JSON: unrounded, with the keys and hashes that each row follows from."""

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from statistics import fmean, stdev
from typing import Any

from harness.plan.planning import Plan, Table
from harness.reporting.differences import mean_ratio, ranks, to_teacher
from harness.reporting.foot import warnings
from harness.reporting.guard import epochs, footnotes, kept_layers, labelled_steps
from harness.reporting.rows import Model, Row, accuracies, fronts
from harness.reporting.study_tables import SOURCE, study_rows
from harness.reporting.tables import macs_ratio, over_seeds, students
from harness.store.records import Interval, LatencyRecord

JSON = dict[str, Any]
_line = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def as_csv_and_json(plan: Plan, table: Table, rows: Sequence[Row]) -> tuple[str, str]:
    """A table as CSV and as JSON."""
    documents = _rows(rows)
    return _as_csv(documents), _as_json(plan, table, rows, documents)


def _as_json(plan: Plan, table: Table, rows: Sequence[Row], documents: list[JSON]) -> str:
    """One document: `rows` in the table's order, `means` over seeds, what the `study` published, footnotes, warnings.

    A figure with an interval is {"value", "low", "high"}; what is missing or not known is null.
    """
    document = {
        "profile": plan.profile,
        "experiment": table.name,
        "title": table.title,
        "protocol": table.protocol,
        "condition": plan.settings.bench.conditions[0],
        "rows": documents,
        "means": _means(rows),
        "study": {
            "source": SOURCE,
            "rows": [
                {
                    "model": row.cell.title,
                    "latency_ms": one.latency_ms,
                    "accuracy_pct": one.accuracy_pct,
                    "parameters_m": one.params_m,
                    "latency_ratio": one.ratio_to_teacher,
                }
                for row, one in study_rows(rows)
            ],
        },
        "footnotes": [{"number": one.number, "text": one.text} for one in footnotes(rows)],
        "warnings": warnings(rows),
    }
    return "{\n" + ",\n".join(f"{_line(name)}: {_lines(value)}" for name, value in document.items()) + "\n}\n"


def _lines(value: Any) -> str:
    """JSON with a line for each entry of a list, as people compare versions of a file."""
    if not (isinstance(value, list) and value):
        return _line(value)
    return "[\n" + ",\n".join(f" {_line(entry)}" for entry in value) + "\n]"


def _as_csv(documents: list[JSON]) -> str:
    """The rows alone: nested names are joined by underscores, lists by semicolons, and what is missing is empty."""
    flat = [_flat(row) for row in documents]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _rows(rows: Sequence[Row]) -> list[JSON]:
    notes = footnotes(rows)
    teacher_macs = next((row.macs for row in rows if row.cell.is_teacher), None)
    models: list[Model] = [[row] for row in rows]
    # as in the table: single trainings are not ranked where there are several of each model
    places = [None] * len(rows) if over_seeds(rows) else fronts(models)
    accurate = [None] * len(rows) if over_seeds(rows) else ranks(models)
    return [
        {
            "cell": row.cell.id,
            "model": row.cell.title,
            "state": row.problems[0].state if row.problems else "done",
            "pruning": row.pruning,
            "kd": row.kd,
            "prune_amount": row.cell.prune_amount,
            "seed": row.cell.seed,
            "axes": row.axes,
            "pareto_rank": place,
            "accuracy_rank": rank,
            "latency_ms": _interval(row.latency.latency_ms if row.latency else None),
            "latency_ratio": _interval(row.ratio),
            "accuracy_pct": row.accuracy_pct,
            "accuracy_correct": row.accuracy.correct if row.accuracy else None,
            "accuracy_images": row.accuracy.images if row.accuracy else None,
            "accuracy_difference_points": _interval(to_teacher([row], rows)),
            "parameters": row.params,
            "macs": row.macs,
            "macs_ratio": macs_ratio(row, teacher_macs),
            "epochs": epochs(row),
            "labelled_steps": labelled_steps(row),
            "kept_layers": sorted(kept_layers(row) or ()),
            "footnotes": [one.number for one in notes if row.cell.id in one.cells],
            "remarks": [*row.labels, *(one.detail for one in (*row.cautions, *row.problems))],
            "conditions": {record.condition: _condition(record) for record in row.beside},
            **_origin(row),
        }
        for row, place, rank in zip(rows, places, accurate, strict=True)
    ]


def _condition(record: LatencyRecord) -> JSON:
    return {
        "latency_ms": _interval(record.latency_ms),
        "latency_ratio": _interval(record.ratio_to_teacher),
        "key": record.key,
    }


def _origin(row: Row) -> JSON:
    """Keys of the records that a row stands on, and the hashes that tie them to files."""
    records = {"train": row.train, "export": row.export, "latency": row.latency, "accuracy": row.accuracy}
    return {
        "keys": {stage: record.key if record else None for stage, record in records.items()},
        "sha256": {
            "weights": row.train.weights_sha256 if row.train else None,
            "onnx": row.export.onnx_sha256 if row.export else None,
            "testset": row.accuracy.testset_sha256 if row.accuracy else None,
            "answers": row.accuracy.predictions_sha256 if row.accuracy else None,
        },
        "harness_revisions": {
            stage: record.environment.get("harness_revision") if record else None for stage, record in records.items()
        },
    }


def _means(rows: Sequence[Row]) -> list[JSON]:
    if not over_seeds(rows):
        return []
    models = students(rows)
    found = [accuracies(model) for model in models]
    return [
        {
            "cells": [row.cell.id for row in model],
            "pruning": model[0].pruning,
            "kd": model[0].kd,
            "prune_amount": model[0].cell.prune_amount,
            "axes": model[0].axes,
            "pareto_rank": place,
            "accuracy_rank": rank,
            "seeds": len(known),
            "accuracy_pct": fmean(known) if known else None,
            "accuracy_sd": stdev(known) if len(known) > 1 else None,
            "accuracy_difference_points": _interval(to_teacher(model, rows)),
            "latency_ratio": _interval(mean_ratio(model)),
            "study_accuracy_pct": model[0].published_mean,
        }
        for model, known, place, rank in zip(models, found, fronts(models), ranks(models), strict=True)
    ]


def _interval(found: Interval | None) -> JSON:
    return found.model_dump() if found else dict.fromkeys(Interval.model_fields)


def _flat(row: Mapping[str, Any], name: str = "") -> JSON:
    """A nested row in one level; the value of an interval has the name of the interval."""
    flat: JSON = {}
    for key, value in row.items():
        own = name if name and key == "value" else f"{name}_{key}" if name else key
        if isinstance(value, Mapping):
            flat |= _flat(value, own)
        else:
            flat[own] = "; ".join(map(str, value)) if isinstance(value, list) else value
    return flat
