import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.containers import runner
from harness.containers.docker_engine import ContainerError
from harness.containers.runner import choose
from harness.errors import HarnessError
from tests.documents import ROOT


@pytest.fixture(autouse=True)
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(runner, "SOCKET", tmp_path / "docker.sock")


def test_local_runs_here_even_where_there_is_an_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody")
    assert choose("local", "cpu") is None
    assert capsys.readouterr().out == ""


def test_auto_without_an_engine_runs_here_and_prints_a_line_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose("auto", "cpu") is None
    assert capsys.readouterr().out == "RUNNER=auto: no Docker engine here; running on this machine\n"


def test_auto_with_an_engine_that_does_not_answer_runs_here_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    assert choose("auto", "gpu") is None
    said = capsys.readouterr().out
    assert said.startswith("RUNNER=auto: no Docker engine answers at unix:///")
    assert said.count("\n") == 1 and said.endswith("; running on this machine\n")


def test_docker_without_an_engine_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(ContainerError, match="start it, or use RUNNER=local"):
        choose("docker", "cpu")


def test_an_unknown_runner_is_an_error() -> None:
    with pytest.raises(HarnessError, match="RUNNER 'podman': not one of auto, docker, local"):
        choose("podman", "cpu")


def test_a_context_that_is_named_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    assert choose("auto", "cpu") is None
    said = "docker context 'elsewhere': there is none of this name (`docker context ls` lists them); running on"
    assert capsys.readouterr().out.startswith(f"RUNNER=auto: {said}")


def test_what_only_a_container_has_is_refused_or_said_to_have_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HarnessError, match="MEMORY=4g, GPUS=0: has no effect with RUNNER=local"):
        choose("local", "gpu", {"MEMORY": "4g", "GPUS": "0"})
    assert choose("local", "gpu", {"MEMORY": "", "GPUS": ""}) is None
    assert choose("auto", "cpu", {"MEMORY": "4g"}) is None
    assert "RUNNER=auto: MEMORY=4g has no effect without a container\n" in capsys.readouterr().out


NOBODY = ["unshare", "-U", "--map-user=12345"]


@pytest.mark.skipif(
    subprocess.run([*NOBODY, "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="this user may not become another one in a namespace",
)
def test_a_user_without_a_home_or_a_name_runs_here() -> None:
    script = "from harness.containers.runner import choose; assert choose('auto', 'cpu') is None"
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [*NOBODY, sys.executable, "-c", script]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("RUNNER=auto: ")
