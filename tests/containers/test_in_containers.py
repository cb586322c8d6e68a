"""Against a real engine and both images, built from the committed Dockerfiles.

Skipped where no engine answers. Where one answers but is broken, or lacks the images, these tests fail.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import onnx
import pytest

from harness.bench.job import Job
from harness.commands.latency_document import LatencyDocument
from harness.containers import ownership as owner
from harness.containers.container import OWNER, RUN, ContainerSpec, options, run, sweep
from harness.containers.docker_engine import ContainerError, connect
from harness.containers.images import CPU, GPU, Built, ImageSpec, build, present
from harness.containers.in_docker import bench_spec, enclosed
from harness.containers.runner import Docker
from harness.host.isa.shown import obstacle
from harness.host.openings import openings
from harness.plan.cpu_table import find_cpu
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, TrainRecord, load, record_path
from tests.bench_kit import Workshop, tiny_network
from tests.command import environment, harness, real_data, tiny_matrix

MEBIBYTE = 2**20
CELLS = ["teacher-s0", "p0.3-bn-base-s0"]
# Networks that have seen 300 images may guess, and a shared machine may be busy.
UNLUCKY = {"chance-accuracy", "stolen-run", "control-off", "unusable-interval"}
# The image has all that it takes to show the target's instruction set.
HEADLINE = f"onnxruntime-1.16.0-{'host' if obstacle(find_cpu('i9-9900K')) else 'target'}-threads-1"
# Ours, and only ours: others may use the same engine.
OURS: dict[str, str | list[str] | bool] = {"label": RUN}


@pytest.fixture(scope="session")
def client() -> docker.DockerClient:
    if reason := os.environ.get("NO_ENGINE"):
        pytest.skip(reason)
    try:
        return connect()
    except ContainerError as error:
        if error.kind in ("engine-absent", "engine-unusable"):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def cpu(client: docker.DockerClient) -> Built:
    return present(client, CPU)


@pytest.fixture(scope="session")
def gpu(client: docker.DockerClient) -> Built:
    return present(client, GPU)


@pytest.fixture
def spec(cpu: Built, tmp_path: Path) -> ContainerSpec:
    """A container that does nothing yet."""
    return ContainerSpec(
        role="test",
        image=cpu.id,
        command=[],
        entrypoint=["/bin/sh", "-c"],
        readable=[],
        writable=[tmp_path / "out"],
        log=tmp_path / "out/container.log",
        memory_bytes=128 * MEBIBYTE,
        hint="give it more with MEMORY=8g",
        cpus=[min(os.sched_getaffinity(0))],
    )


def ours(client: docker.DockerClient) -> list[str]:
    return [str(container.name) for container in client.containers.list(all=True, filters=OURS, ignore_removed=True)]


def eventually(condition: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < until, what
        time.sleep(0.1)
    return found


# --- The whole chain --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain(
    cpu: Built, gpu: Built, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """The quick profile on a slice: trained and exported in the GPU image, on the CPU, and benched in the CPU image."""
    folder = tmp_path_factory.mktemp("chain")
    empty = folder / "empty"
    empty.mkdir()
    tiny_matrix(folder, ["base"])
    (folder / "README.md").write_text("# Results\n\n<!-- table: quick prune-0.3 -->\n<!-- end -->\n")
    done = {"folder": subprocess.CompletedProcess([], 0, str(folder), "")}
    in_images = {"train-matrix": ["--runner=docker", "--gpus=none", "--memory=6g"], "bench": ["--runner=docker"]}
    for verb in ("train-matrix", "bench", "report", "check"):
        arguments = ["--profile", "quick", *in_images.get(verb, ["--json"] if verb == "check" else [])]
        done[verb] = harness(folder, verb, *arguments, data=real_data() or empty)
        # what a check finds is looked at below
        assert verb == "check" or done[verb].returncode == 0, done[verb].stdout + done[verb].stderr
    return done


@pytest.fixture
def folder(chain: dict[str, subprocess.CompletedProcess[str]]) -> Path:
    return Path(chain["folder"].stdout)


@pytest.mark.parametrize("cell", CELLS)
def test_every_record_names_its_image_and_measurements_have_the_facts_of_their_container(
    folder: Path, cpu: Built, gpu: Built, cell: str
) -> None:
    results = folder / "results"
    for kind in (TrainRecord, ExportRecord):
        assert load(record_path(results, "quick", kind.stage, cell), kind).environment["image"] == gpu.id
    latency = load(record_path(results, "quick", "latency", cell, HEADLINE), LatencyRecord)
    accuracy = load(record_path(results, "quick", "accuracy", cell), AccuracyRecord)
    for record in (latency, accuracy):
        assert record.status == "done"
        assert record.runtime == "onnxruntime 1.16.0"
        assert record.environment["image"] == cpu.id
        assert openings(record.environment["enclosure"]) == []
    for process in latency.processes:
        assert set(process.cpus) <= set(latency.environment["enclosure"]["cpus"])


def test_results_belong_to_the_caller_and_logs_are_kept(folder: Path) -> None:
    owners = {path.lstat().st_uid for part in ("results", "artifacts") for path in (folder / part).rglob("*")}
    assert owners == {os.getuid()}
    assert "p0.3-bn-base-s0" in (folder / "artifacts/quick/train-container.log").read_text()
    assert "P(0.3_BN)_KD(0)_SEED(0)" in (folder / "artifacts/quick/bench/container.log").read_text()


def test_the_table_is_written_and_the_checks_find_nothing_amiss(
    folder: Path, chain: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    assert "P(0.3_BN)_KD(0)_SEED(0)" in (folder / "README.md").read_text()
    findings = json.loads(chain["check"].stdout)["findings"]
    assert {one["check"] for one in findings if one["severity"] == "error"} <= UNLUCKY


def test_what_is_done_is_not_done_again(folder: Path) -> None:
    for verb, said in {"train-matrix": "Nothing to train", "bench": "Nothing to bench"}.items():
        done = harness(folder, verb, "--profile", "quick", "--runner=docker", data=folder / "empty")
        # the data is looked for where the cells' data came from
        assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr


def test_training_that_was_stopped_resumes_in_the_next_container(gpu: Built, tmp_path: Path) -> None:
    tiny_matrix(tmp_path, ["base"], profile__quick__data__train_images=2000, profile__quick__teacher__epochs=3)
    (tmp_path / "empty").mkdir()
    data = real_data() or tmp_path / "empty"
    arguments = ["train-matrix", "--profile=quick", "--cell=teacher-s0"]
    arguments += ["--runner=docker", "--gpus=none", "--memory=6g"]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=tmp_path,
        env=environment(data),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    # the line of a finished epoch, which on a slow machine comes after some about its steps
    first = "epoch 1 of 3  loss"
    assert any(first in line for line in process.stdout), "training did not begin"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command resumes from here" in said
    (checkpoint,) = (tmp_path / "artifacts/quick").rglob("checkpoint.pt")
    assert checkpoint.stat().st_uid == os.getuid()
    done = harness(tmp_path, *arguments, data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch 3 of 3  loss" in done.stdout and first not in done.stdout
    record = load(record_path(tmp_path / "results", "quick", "train", "teacher-s0"), TrainRecord)
    assert len(record.epochs) == 3


def test_nothing_is_left_of_any_run(client: docker.DockerClient, folder: Path) -> None:
    assert ours(client) == []


def test_the_gpu_image_works_without_a_gpu_and_knows_cuda(
    client: docker.DockerClient, gpu: Built, spec: ContainerSpec
) -> None:
    script = "import torch; print('cuda', torch.version.cuda, torch.cuda.is_available())"
    asked = replace(
        spec, image=gpu.id, entrypoint=["/opt/train/bin/python", "-c"], command=[script], memory_bytes=2048 * MEBIBYTE
    )
    assert run(client, asked) == 0
    assert asked.log.read_text().startswith("cuda 13")


# --- Images -----------------------------------------------------------------------------------------------------------


def test_an_image_whose_content_is_the_same_is_not_built_again(client: docker.DockerClient, cpu: Built) -> None:
    said: list[str] = []
    assert build(client, CPU, said.append) == cpu
    assert said == []


def test_images_have_labels_that_say_what_they_are_made_of(client: docker.DockerClient, cpu: Built, gpu: Built) -> None:
    for built in (cpu, gpu):
        labels = client.images.get(built.id).labels
        assert labels["org.opencontainers.image.revision"] not in ("", "unknown")
        assert "@sha256:" in labels["org.opencontainers.image.base.name"] or os.environ.get("BASE_IMAGE")
        assert all(name.stem in labels["compression-harness.requirements-sha256"] for name in built.spec.requirements)
    assert cpu.megabytes < 500


def test_the_bench_image_has_no_compiler_no_torch_and_no_installer(
    client: docker.DockerClient, spec: ContainerSpec
) -> None:
    script = "command -v cc gcc uv pip pip3; ls -d /opt/*/lib/python3*/site-packages/torch /opt/*/bin/pip; exit 0"
    assert run(client, replace(spec, command=[script])) == 0
    assert not [line for line in spec.log.read_text().splitlines() if line.startswith("/")]


def compared(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with a model, and what the image is told to do with it: little enough for a test."""
    models = tmp_path / "models"
    models.mkdir()
    onnx.save(tiny_network(8, 1.0, {}), models / "a.onnx")
    return models, ["latency", str(models / "a.onnx"), "--minutes", "0.0001", "--json"]


def test_any_onnx_files_are_compared_in_the_image(
    client: docker.DockerClient, spec: ContainerSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, command = compared(tmp_path)
    memory = 1024 * MEBIBYTE
    closed = replace(spec, entrypoint=None, command=command, readable=[models], writable=[], memory_bytes=memory)
    assert run(client, closed) == 0
    found = LatencyDocument.model_validate_json(capsys.readouterr().out)
    assert found.conditions[0].runtime == "onnxruntime 1.16.0"
    assert found.machine["enclosure"]["cpus"] == spec.cpus
    assert found.machine["enclosure"]["memory_bytes"] == memory
    assert found.harness_revision != "unknown"


@pytest.mark.negative
def test_in_an_open_container_nothing_is_compared(client: docker.DockerClient, cpu: Built, tmp_path: Path) -> None:
    models, command = compared(tmp_path)
    mounted = {str(models): {"bind": str(models), "mode": "rw"}}
    container = client.containers.create(cpu.id, command, volumes=mounted, labels={RUN: "open"})
    try:
        container.start()
        assert container.wait()["StatusCode"] == 2
        said = container.logs().decode()
    finally:
        container.remove(force=True)
    assert said.startswith("error: the container is not closed as it should be: ")
    assert "its root file system can be written to" in said and "models can be written to" in said
    assert "Start it with: docker run --rm --network none --read-only" in said


@pytest.fixture
def small(cpu: Built, tmp_path: Path, client: docker.DockerClient) -> Iterator[ImageSpec]:
    """An image of one line of text, on top of the CPU image."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness/text").write_text("one\n")
    (tmp_path / "Dockerfile.test").write_text(f"FROM {cpu.id}\nARG REVISION\nCOPY harness/text /text\n")
    yield ImageSpec("test", tmp_path)
    for found in client.images.list(filters={"label": "compression-harness.image=test"}):
        client.images.remove(str(found.id), force=True)


def test_an_image_is_built_again_where_its_content_changed_and_the_old_one_is_removed(
    client: docker.DockerClient, small: ImageSpec
) -> None:
    first = build(client, small, lambda _: None)
    (small.root / "harness/text").write_text("two\n")
    with pytest.raises(ContainerError, match="another state of this checkout; run: make images"):
        present(client, small)
    second = build(client, small, lambda _: None)
    assert first.id != second.id and present(client, small).id == second.id
    left = client.images.list(filters={"label": "compression-harness.image=test"})
    assert [one.id for one in left] == [second.id]


@pytest.mark.negative
def test_a_build_that_fails_shows_its_output_and_leaves_nothing(client: docker.DockerClient, small: ImageSpec) -> None:
    before = {container.id for container in client.containers.list(all=True)}
    with small.dockerfile.open("a") as file:
        file.write("USER 0\nRUN echo last words && false\n")
    with pytest.raises(ContainerError, match="last words") as caught:
        build(client, small, lambda _: None)
    assert caught.value.kind == "build-failed"
    assert {container.id for container in client.containers.list(all=True)} == before


# --- What goes wrong --------------------------------------------------------------------------------------------------


def fails(client: docker.DockerClient, spec: ContainerSpec, kind: str, remedy: str) -> None:
    with pytest.raises(ContainerError, match=remedy) as caught:
        run(client, spec)
    assert caught.value.kind == kind
    assert ours(client) == []


@pytest.mark.negative
def test_running_out_of_memory_is_an_error_with_a_remedy(client: docker.DockerClient, spec: ContainerSpec) -> None:
    script = "/opt/bench-1.16.0/bin/python -c 'bytearray(1 << 30)'"
    fails(client, replace(spec, command=[f"exec {script}"]), "out-of-memory", "more than its 0.1 GiB; give it more")


@pytest.mark.negative
def test_a_container_killed_from_outside_is_an_error_that_says_how_to_resume(
    client: docker.DockerClient, spec: ContainerSpec
) -> None:
    def kill() -> None:
        eventually(lambda: client.containers.list(filters=OURS), "it starts")[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    fails(client, replace(spec, command=["echo begun; sleep 60"]), "killed", "killed from outside.*resumes from there")
    killer.join()
    assert "begun" in spec.log.read_text()


@pytest.mark.negative
def test_an_image_that_is_not_there_is_an_error(client: docker.DockerClient, spec: ContainerSpec) -> None:
    fails(client, replace(spec, image=f"sha256:{'0' * 64}"), "missing-image", "make images")


@pytest.mark.negative
def test_cpus_that_are_not_there_are_an_error(client: docker.DockerClient, spec: ContainerSpec) -> None:
    fails(client, replace(spec, cpus=[4000]), "wrong-cpuset", "RUNNER=local")


@pytest.mark.negative
def test_a_gpu_without_the_nvidia_toolkit_is_an_error(client: docker.DockerClient, spec: ContainerSpec) -> None:
    if "nvidia" in client.info().get("Runtimes", {}):
        pytest.skip("this engine has the NVIDIA runtime")
    fails(client, replace(spec, gpus=("all",)), "no-gpu-runtime", "GPUS=none")


@pytest.mark.negative
def test_a_full_disk_is_an_error_that_names_the_folders(client: docker.DockerClient, spec: ContainerSpec) -> None:
    (place,) = spec.writable
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        write = f"dd if=/dev/zero of={place}/file bs=1M count=4 2>&1"
        outside = replace(spec, log=place.parent / "container.log", command=[write])
        fails(client, outside, "full-disk", f"no space left in one of {place}; free some")
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.negative
def test_an_engine_that_goes_away_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpu: Built) -> None:
    tiny_matrix(tmp_path, ["base"])
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    done = harness(tmp_path, "train-matrix", "--profile", "quick", "--runner", "docker", data=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no Docker engine answers at unix://{tmp_path}/nobody.sock")
    assert "RUNNER=local" in done.stderr and "Traceback" not in done.stderr


# --- Stopped from outside ---------------------------------------------------------------------------------------------

RUN_IT = """
import json, sys
from dataclasses import fields
from pathlib import Path
from harness.containers.container import ContainerSpec, run
from harness.containers.docker_engine import connect
given = json.loads(sys.argv[1])
for name in ("readable", "writable"):
    given[name] = [Path(path) for path in given[name]]
sys.exit(run(connect(), ContainerSpec(**{**given, "log": Path(given["log"])})))
"""


@pytest.mark.negative
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_harness_that_is_stopped_leaves_no_container(
    client: docker.DockerClient, spec: ContainerSpec, number: signal.Signals
) -> None:
    # a polite end, so that the container has one of its own
    given = {**vars(replace(spec, command=["echo begun; exec sleep 60"])), "readable": []}
    text = json.dumps(given, default=str)
    process = subprocess.Popen([sys.executable, "-c", RUN_IT, text], env=environment(), stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"begun\n"
    assert len(ours(client)) == 1
    process.send_signal(number)
    assert process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    eventually(lambda: not ours(client), "no container is left")
    (folder,) = spec.writable
    eventually(lambda: folder.stat().st_uid == os.getuid(), "the folder is the caller's again")


@pytest.mark.negative
def test_the_next_run_removes_what_a_killed_one_left_and_nothing_that_runs(
    client: docker.DockerClient, spec: ContainerSpec
) -> None:
    """As if the process that cleans up after a killed harness had been killed, too."""
    gone, alive = owner.this_process().rpartition(" ")[0] + " 1", owner.this_process()
    made = {}
    for label in (gone, alive):
        asked = {**options(replace(spec, writable=[]), "left", "10001:10001"), "labels": {RUN: "left", OWNER: label}}
        made[label] = client.containers.create(**asked)
    try:
        assert sweep(client) == [made[gone].name]
        assert ours(client) == [made[alive].name]
    finally:
        for container in made.values():
            try:
                container.remove(force=True)
            except docker.errors.NotFound:
                continue


# --- Containers that are not closed -----------------------------------------------------------------------------------


@pytest.fixture
def job(cpu: Built, client: docker.DockerClient, tmp_path: Path) -> Job:
    workshop = Workshop(tmp_path)
    model = workshop.model("teacher-s0", teacher=True)
    place = tmp_path / "models/model.onnx"
    place.parent.mkdir()
    model.onnx.rename(place)
    settings = {**workshop.job(model).settings.model_dump(mode="json"), "engines": ["onnxruntime-1.16.0"]}
    made = workshop.job(model.model_copy(update={"onnx": place}), settings=settings)
    return enclosed(Docker(client, cpu), made, 512 * MEBIBYTE)


def without_read_only(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**mount, "ReadOnly": False} for mount in mounts]


LOOSE: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "network": (lambda _: {"network_mode": "host"}, "it has a network"),
    "writable-root": (lambda _: {"read_only": False}, "its root file system can be written to"),
    "root": (lambda _: {"user": "0:0"}, "it runs as root"),
    "capabilities": (lambda _: {"cap_drop": [], "user": "0:0"}, "it has capabilities: chown"),
    "privileges": (lambda _: {"security_opt": []}, "it may gain privileges"),
    "memory": (lambda _: {"mem_limit": "1g", "memswap_limit": "1g"}, "its memory limit is 1073741824 bytes"),
    "models": (lambda asked: {"mounts": without_read_only(asked["mounts"])}, "models can be written to"),
    "folder": (
        lambda asked: {"mounts": [*asked["mounts"], docker.types.Mount("/mnt", "/var/tmp", type="bind")]},
        "more than the result folders can be written to: /mnt",
    ),
    "socket": (
        lambda asked: {
            "mounts": [*asked["mounts"], docker.types.Mount("/var/run/docker.sock", os.devnull, "bind", read_only=True)]
        },
        "the engine's socket is in it: ",
    ),
}


@pytest.mark.negative
@pytest.mark.parametrize("opening", LOOSE)
def test_a_container_that_is_open_measures_nothing(
    client: docker.DockerClient, job: Job, opening: str, tmp_path: Path
) -> None:
    loosen, said = LOOSE[opening]
    file = job.raw / "job.json"
    with owner.handed_over([job.results / job.profile, job.raw]) as user:
        file.write_text(job.model_dump_json())
        file.chmod(0o644)
        asked = options(bench_spec(job, file), "open", user.name)
        interfaces = [line for line in Path("/proc/net/dev").read_text().splitlines()[2:] if "lo:" not in line]
        if opening == "network" and not interfaces:
            pytest.skip("this machine has no network interface to show")
        container = client.containers.create(**{**asked, **loosen(asked)})
        try:
            container.start()
            code, log = container.wait(timeout=120)["StatusCode"], container.logs().decode()
        finally:
            container.remove(force=True)
    assert code == 2, log
    assert "the container is not closed as it should be" in log and said in log
    assert not list((job.results / job.profile).rglob("*.json"))


@pytest.mark.negative
def test_a_container_on_other_cpus_measures_nothing(client: docker.DockerClient, job: Job) -> None:
    assert job.enclosure
    other = job.model_copy(update={"enclosure": job.enclosure.model_copy(update={"cpus": [0, 1, 2, 99]})})
    file = job.raw / "job.json"
    job.raw.mkdir(parents=True)
    file.write_text(other.model_dump_json())
    assert run(client, bench_spec(job, file)) == 2
    assert "not the chosen 0,1,2,99" in (job.raw / "container.log").read_text()
