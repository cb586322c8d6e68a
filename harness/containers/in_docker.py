"""`bench` and `train-matrix` in their images: with which files, CPUs, memory and GPUs."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.bench.blocks import conditions
from harness.bench.job import Enclosure, Job
from harness.containers.container import ContainerSpec, run
from harness.containers.docker_engine import ContainerError
from harness.containers.runner import Docker
from harness.errors import HarnessError
from harness.files import atomic_path
from harness.host.cpus import Topology, read_topology
from harness.host.memory_limit import total_bytes
from harness.plan import registry
from harness.plan.bench_settings import engine_environment
from harness.plan.planning import Plan
from harness.plan.specs import engine_plugin
from harness.store.paths import Paths
from harness.store.revision import revision

GIBIBYTE = 2**30
# The largest model with all test images of its size needs less than half of it.
BENCH_MEMORY_BYTES = 4 * GIBIBYTE
# The rest is for the Docker engine, the page cache and other processes.
SHARE_OF_MEMORY = 0.9
# torch's data loaders and NCCL pass tensors through /dev/shm, of which an engine gives 64 MB.
SHM_BYTES = 2 * GIBIBYTE
TRAIN_PIDS = 4096
NVIDIA = Path("/proc/driver/nvidia/version")


# --- The bench -------------------------------------------------------------------------------------------------------


def bench(docker: Docker, job: Job, memory: str = "") -> int:
    """Run a job in the CPU image and return its exit code.

    Raises HarnessError where the image lacks an engine, ContainerError where the container failed.
    """
    for engine in job.settings.engines:
        if ":" in engine_plugin(engine):
            raise HarnessError(f"bench.engines: {engine}: only the harness's own are in the image; use RUNNER=local")
        if (environment := engine_environment(engine)) not in docker.image.spec.environments:
            raise HarnessError(
                f"bench.engines: {engine}: {environment} is not in the image, which has "
                f"{', '.join(docker.image.spec.environments)}; add requirements/{environment}.txt to Dockerfile.cpu, "
                "or use RUNNER=local"
            )
    inside = enclosed(docker, job, bytes_of(memory) if memory else min(BENCH_MEMORY_BYTES, _most_memory()))
    file = job.raw / "job.json"
    job.raw.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        temporary.write_text(inside.model_dump_json(), encoding="utf-8")
    return run(docker.client, bench_spec(inside, file))


def enclosed(docker: Docker, job: Job, memory_bytes: int, topology: Topology | None = None) -> Job:
    """The job as the container gets it: with its image, its interpreters, and the limits that it is started with."""
    cpus = whole_cores(job, topology or read_topology())
    pythons = {engine: Path(f"/opt/{engine_environment(engine)}/bin/python") for engine in job.settings.engines}
    enclosure = Enclosure(cpus=cpus, memory_bytes=memory_bytes)
    return job.model_copy(update={"image": docker.image.id, "pythons": pythons, "enclosure": enclosure})


def whole_cores(job: Job, topology: Topology) -> list[int]:
    """All logical CPUs, siblings included, of the cores that the job's conditions measure on."""
    chosen = {cpu for condition in conditions(job.settings, topology) for cpu in condition.cpus}
    siblings = {sibling for cpu in chosen for sibling in topology.siblings.get(cpu, {cpu})}
    return sorted(siblings & topology.allowed)


def bench_spec(job: Job, file: Path) -> ContainerSpec:
    """The container of a job: it may read the models, and write the profile's records and raw files, nothing else."""
    assert job.enclosure and job.image
    folders = {model.onnx.parent for model in job.models} | {m.answers.parent for m in job.models if m.answers}
    return ContainerSpec(
        role="bench",
        image=job.image,
        command=["job", str(file)],
        readable=[job.testset, *sorted(folders)],
        writable=[job.results / job.profile, job.raw],
        log=job.raw / "container.log",
        memory_bytes=job.enclosure.memory_bytes,
        hint="give it more with MEMORY=8g",
        cpus=job.enclosure.cpus,
        # for the line that shows progress
        environment=_passed_on("COLUMNS", "NO_COLOR"),
    )


# --- Training --------------------------------------------------------------------------------------------------------


def train(
    docker: Docker,
    plan: Plan,
    paths: Paths,
    matrix: Path,
    experiments: Sequence[str],
    budget: str = "",
    gpus: str = "auto",
    memory: str = "",
    more: Sequence[str] = (),
) -> int:
    """Train and export in the GPU image, and return the exit code of `train-matrix` in there.

    The data set has to be on this machine already, since the container has no network. `more` are further options of
    `train-matrix`.
    """
    chosen = chosen_gpus(gpus)
    if not chosen and gpus == "auto":
        print("No NVIDIA GPU on this machine: training on the CPU.", file=sys.stderr)
    spec = train_spec(plan, paths, matrix, experiments, budget, chosen, memory, docker.image.id, more)
    try:
        return run(docker.client, spec)
    except ContainerError as error:
        if error.kind != "no-gpu-runtime":
            raise
        raise ContainerError(
            "no-gpu-runtime", f"the engine cannot give GPUs to containers: {error} (or use RUNNER=local)"
        ) from error


def train_spec(
    plan: Plan,
    paths: Paths,
    matrix: Path,
    experiments: Sequence[str],
    budget: str,
    gpus: Sequence[str],
    memory: str,
    image: str,
    more: Sequence[str] = (),
) -> ContainerSpec:
    """The container that trains: it may read the data and the matrix, and write the profile's results and artifacts."""
    results, artifacts, data = paths.results.resolve(), paths.artifacts.resolve(), paths.data.resolve()
    matrix = matrix.resolve()
    command = ["train-matrix", "--runner=local", f"--profile={plan.profile}", f"--matrix={matrix}"]
    command += [f"--results={results}", f"--artifacts={artifacts}"]
    command += [f"--experiment={name}" for name in experiments]
    command += [f"--budget={budget}"] if budget else []
    command += more
    readable = [matrix, *dataset_files(plan.dataset, data)]
    if checkpoint := plan.settings.teacher.checkpoint:
        readable.append(Path(checkpoint).resolve())
    return ContainerSpec(
        role="training",
        image=image,
        command=command,
        readable=readable,
        writable=[results / plan.profile, artifacts / plan.profile],
        log=artifacts / plan.profile / "train-container.log",
        memory_bytes=bytes_of(memory) if memory else _most_memory(),
        hint="give it more with MEMORY=32g, or lower the batch size",
        environment={
            "DATA_DIR": str(data),
            "HARNESS_REVISION": revision(),
            "HARNESS_IMAGE": image,
            **_passed_on("COLUMNS", "NO_COLOR", "OMP_NUM_THREADS"),
        },
        shm_bytes=SHM_BYTES,
        pids=TRAIN_PIDS,
        gpus=gpus,
    )


def dataset_files(dataset: str, root: Path) -> list[Path]:
    """The files and folders below DATA_DIR that a data set consists of; none where it is not there or needs none."""
    constants = registry.find("dataset", dataset).constants
    names = constants.get("FOLDERS") or [constants[name] for name in ("MARKER",) if name in constants]
    return [root / name for name in names if (root / name).exists()]


def chosen_gpus(asked: str, driver: Path = NVIDIA) -> tuple[str, ...]:
    """The GPUs to use: "auto" is all where the driver is installed; "none", "all", or indices like "0,2"."""
    if asked == "auto":
        return ("all",) if driver.exists() else ()
    if asked in ("none", "all"):
        return () if asked == "none" else ("all",)
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", asked):
        raise HarnessError(f"GPUS {asked!r}: not auto, all, none or numbers like 0,2")
    return tuple(dict.fromkeys(asked.split(",")))


def bytes_of(text: str) -> int:
    """Memory as people write it (512m, 4g, 1.5g) in bytes, in whole pages. HarnessError on anything else."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([mg])b?", text.strip().lower())
    if not found:
        raise HarnessError(f"MEMORY {text!r}: not an amount of memory; write 512m or 4g")
    # the kernel counts in pages
    return int(float(found[1]) * {"m": 2**20, "g": 2**30}[found[2]]) // 4096 * 4096


def _most_memory() -> int:
    return int(SHARE_OF_MEMORY * total_bytes()) // 4096 * 4096


def _passed_on(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}
