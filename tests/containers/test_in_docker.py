from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.bench.job import Job
from harness.commands.bench_job import matrix_job
from harness.containers import in_docker
from harness.containers.container import ContainerSpec, options
from harness.containers.images import CPU, Built
from harness.containers.in_docker import (
    bench,
    bench_spec,
    bytes_of,
    chosen_gpus,
    dataset_files,
    enclosed,
    train_spec,
    whole_cores,
)
from harness.containers.runner import Docker
from harness.errors import HarnessError
from harness.host.memory_limit import total_bytes
from harness.store.paths import Paths
from tests.bench_kit import machine
from tests.checks.planted import Bench
from tests.finished import finish

IMAGE = f"sha256:{'ab' * 32}"
GIBIBYTE = 2**30
# No call below reaches an engine.
NO_ENGINE: Any = None
DOCKER = Docker(NO_ENGINE, Built(CPU, IMAGE, 0))


@pytest.fixture
def bench_of(tmp_path: Path) -> Bench:
    return finish(tmp_path)


def job_of(done: Bench) -> Job:
    paths = Paths(done.results, done.artifacts, done.results.parent / "data")
    return matrix_job(done.plan, paths, local=False)


@pytest.mark.parametrize(
    ("cores", "allowed", "threads", "expected"),
    [
        ([[0, 4], [1, 5], [2, 6], [3, 7]], None, [1], [1, 5]),
        ([[0, 4], [1, 5], [2, 6], [3, 7]], None, [1, 2], [1, 2, 5, 6]),
        ([[0, 4], [1, 5]], {0, 1, 4}, [1], [0, 4]),
        ([[0], [1]], None, [1, "all"], [0, 1]),
    ],
)
def test_a_container_gets_whole_cores_siblings_included(
    bench_of: Bench, cores: list[list[int]], allowed: set[int] | None, threads: list[Any], expected: list[int]
) -> None:
    job = job_of(bench_of)
    job = job.model_copy(update={"settings": job.settings.model_copy(update={"threads": threads})})
    assert whole_cores(job, machine(cores, allowed)) == expected


def test_a_job_knows_its_image_its_interpreters_and_its_limits(bench_of: Bench) -> None:
    job = enclosed(DOCKER, job_of(bench_of), 3 * GIBIBYTE, machine([[0, 2], [1, 3]]))
    assert job.image == IMAGE
    assert job.enclosure and (job.enclosure.cpus, job.enclosure.memory_bytes) == ([1, 3], 3 * GIBIBYTE)
    assert job.pythons["onnxruntime-1.16.0"] == Path("/opt/bench-1.16.0/bin/python")
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_the_bench_may_write_its_results_and_nothing_else(bench_of: Bench) -> None:
    job = enclosed(DOCKER, job_of(bench_of), GIBIBYTE, machine([[0], [1]]))
    asked = options(bench_spec(job, job.raw / "job.json"), "run-1", "1000:1000")
    mounts = {mount["Target"]: mount["ReadOnly"] for mount in asked["mounts"]}
    writable = {place for place, read_only in mounts.items() if not read_only}
    assert writable == {str(job.results / job.profile), str(job.raw)}
    for model in job.models:
        assert mounts[str(model.onnx.parent)] is True
    assert mounts[str(job.testset)] is True
    assert all(mount["Source"] == mount["Target"] for mount in asked["mounts"])
    assert not [place for place in mounts if "docker.sock" in place]


def test_a_container_is_hardened(bench_of: Bench) -> None:
    job = enclosed(DOCKER, job_of(bench_of), GIBIBYTE, machine([[0, 2], [1, 3]]))
    asked = options(bench_spec(job, job.raw / "job.json"), "run-1", "1000:1000")
    expected = {
        "user": "1000:1000",
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": GIBIBYTE,
        "memswap_limit": GIBIBYTE,
        "cpuset_cpus": "1,3",
        "init": True,
        "image": IMAGE,
        "device_requests": None,
    }
    assert {name: asked[name] for name in expected} == expected
    assert list(asked["tmpfs"]) == ["/tmp"]
    assert 0 < asked["pids_limit"] <= 4096
    # a quota would throttle the process, and so distort measurements
    assert not {"nano_cpus", "cpu_quota", "cpu_period", "privileged"} & set(asked)
    assert asked["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_an_engine_whose_environment_the_image_lacks_is_an_error_before_anything_runs(
    bench_of: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_docker, "engine_environment", lambda _: "bench-1.20")
    said = r"bench\.engines: onnxruntime-1\.16\.0: bench-1\.20 is not in the image, which has bench-1\.16\.0, bench-cur"
    with pytest.raises(HarnessError, match=said):
        bench(DOCKER, job_of(bench_of))


def test_an_engine_of_another_package_is_an_error_before_anything_runs(bench_of: Bench) -> None:
    job = job_of(bench_of)
    other = job.model_copy(update={"settings": job.settings.model_copy(update={"engines": ["mine.engine:FAST-1"]})})
    with pytest.raises(HarnessError, match=r"mine\.engine:FAST-1: only the harness's own are in the image"):
        bench(DOCKER, other)


# --- Training ---------------------------------------------------------------------------------------------------------


def spec_of(
    done: Bench, gpus: Sequence[str] = (), memory: str = "", experiments: Sequence[str] = (), budget: str = ""
) -> ContainerSpec:
    paths = Paths(done.results, done.artifacts, done.results.parent / "data")
    return train_spec(done.plan, paths, Path("matrix.toml"), experiments, budget, gpus, memory, IMAGE)


def test_training_may_write_the_folders_of_the_profile_and_only_read_the_rest(bench_of: Bench) -> None:
    (bench_of.results.parent / "data/cifar-100-python").mkdir(parents=True)
    spec = spec_of(bench_of, experiments=["prune-0.3"], budget="9m")
    assert spec.writable == [bench_of.results / "lite", bench_of.artifacts / "lite"]
    assert spec.readable == [Path("matrix.toml").resolve(), bench_of.results.parent / "data/cifar-100-python"]
    assert {"--runner=local", "--profile=lite", "--experiment=prune-0.3", "--budget=9m"} <= set(spec.command)
    assert spec.environment["HARNESS_IMAGE"] == IMAGE
    assert spec.environment["DATA_DIR"] == str(bench_of.results.parent / "data")
    assert spec.cpus is None and spec.shm_bytes >= GIBIBYTE
    assert 0.5 * total_bytes() < spec.memory_bytes < total_bytes()
    assert spec_of(bench_of, memory="2g").memory_bytes == 2 * GIBIBYTE


def test_data_that_is_not_there_is_not_mounted(bench_of: Bench) -> None:
    assert spec_of(bench_of).readable == [Path("matrix.toml").resolve()]


def test_a_data_set_is_mounted_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("train", "test", "cifar-100-python", "private"):
        (tmp_path / name).mkdir()
    assert dataset_files("image_folder", tmp_path) == [tmp_path / "train", tmp_path / "test"]
    assert dataset_files("cifar100", tmp_path) == [tmp_path / "cifar-100-python"]
    assert dataset_files("stand_in", tmp_path) == []


@pytest.mark.parametrize(
    ("gpus", "count", "ids"), [(("all",), -1, None), (("0",), None, ["0"]), (("1", "3"), None, ["1", "3"])]
)
def test_gpus_are_asked_for_as_a_device_request(
    bench_of: Bench, gpus: tuple[str, ...], count: int | None, ids: list[str] | None
) -> None:
    asked = options(spec_of(bench_of, gpus), "run-1", "1000:1000")
    (request,) = asked["device_requests"]
    assert request["Capabilities"] == [["gpu"]]
    assert (request["Count"] or None, request["DeviceIDs"] or None) == (count, ids)
    assert "NVIDIA_VISIBLE_DEVICES" not in asked["environment"]


@pytest.mark.parametrize(
    ("asked", "driver", "chosen"),
    [
        ("auto", True, ("all",)),
        ("auto", False, ()),
        ("none", True, ()),
        ("all", False, ("all",)),
        ("0,2", False, ("0", "2")),
        ("1,1", True, ("1",)),
    ],
)
def test_gpus_are_chosen_by_what_is_asked_for_and_whether_there_is_a_driver(
    asked: str, driver: bool, chosen: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "version"
    if driver:
        file.touch()
    assert chosen_gpus(asked, file) == chosen


@pytest.mark.parametrize("asked", ["", "gpu0", "0,", "-1"])
def test_unknown_gpus_are_an_error(asked: str) -> None:
    with pytest.raises(HarnessError, match=r"GPUS .* not auto, all, none or numbers"):
        chosen_gpus(asked)


@pytest.mark.parametrize(("text", "expected"), [("512m", 2**29), ("4g", 2**32), ("1.5G", 3 * 2**29), ("2gb", 2**31)])
def test_amounts_of_memory_are_read(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize("text", ["", "4", "g", "4t", "-1g", "1e3m"])
def test_anything_else_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(HarnessError, match="write 512m or 4g"):
        bytes_of(text)
