import json
from pathlib import Path
from typing import Any

import pytest

from harness.bench.job import Job, read
from harness.errors import HarnessError
from tests.bench_kit import Workshop


def fields(workshop: Workshop) -> dict[str, Any]:
    job = workshop.job(workshop.model("teacher-s0", teacher=True), workshop.model("p0.3-bn-gram-s0"))
    return json.loads(job.model_dump_json())


def test_a_job_is_read_as_it_was_written(workshop: Workshop) -> None:
    models = workshop.model("teacher-s0", teacher=True), workshop.model("p0.3-bn-gram-s0")
    job = workshop.job(*models, pythons={"onnxruntime-current": "/opt/python"})
    path = workshop.folder / "job.json"
    path.write_text(job.model_dump_json())
    assert read(path, Job) == job
    assert job.teacher is job.models[0]


def test_without_a_teacher_there_is_none(workshop: Workshop) -> None:
    assert workshop.job(workshop.model("p0.3-bn-gram-s0")).teacher is None


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("profil",), "quick", "profil"),
        (("models",), [], "models"),
        (("models", 1, "cell"), "teacher-s0", "every cell once"),
        (("models", 1, "is_teacher"), True, "at most one teacher"),
        (("models", 0, "is_teacher"), "yes", "models.0.is_teacher"),
        (("models", 0, "cell"), "../x", "models.0.cell"),
        (("models", 0, "onnx_sha256"), "abc", "models.0.onnx_sha256"),
        (("settings", "threads"), [0], "settings.threads"),
        (("settings", "threads"), [1, 1], "settings.threads"),
        (("settings", "threads"), [], "settings.threads"),
        (("models", 1, "latency"), {}, "p0.3-bn-gram-s0: no latency for onnxruntime-current-host-threads-1"),
        (
            ("settings", "engines"),
            ["onnxruntime-1.17"],
            r"settings\.engines.*allowed: onnxruntime-1.16.0, onnxruntime-c",
        ),
        (("settings", "engines"), ["tensorrt-10"], "settings.engines"),
        (("settings", "precision_pct"), 0, "settings.precision_pct"),
        (("settings", "rounds"), 10, "settings.rounds"),
        (("settings", "blocks"), 2, "settings.blocks"),
        (("settings", "target"), None, "settings.target"),
    ],
)
def test_a_bad_value_is_named(workshop: Workshop, path: tuple[Any, ...], value: Any, said: str) -> None:
    document = fields(workshop)
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    file = workshop.folder / "job.json"
    file.write_text(json.dumps(document))
    with pytest.raises(HarnessError, match=rf"job\.json.*{said}"):
        read(file, Job)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff"])
def test_a_truncated_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(HarnessError, match=r"job\.json: not a bench job"):
        read(path, Job)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"job\.json: no such file"):
        read(tmp_path / "job.json", Job)
