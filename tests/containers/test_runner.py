from pathlib import Path

import pytest

from harness.containers import runner
from harness.containers.docker_engine import ContainerError
from harness.containers.runner import choose
from harness.errors import HarnessError


@pytest.fixture(autouse=True)
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
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
