from pathlib import Path

import pytest
from docker.errors import APIError, DockerException, ImageNotFound
from requests import Response

from harness.containers.docker_engine import ContainerError, connect, refusal, worded


@pytest.mark.parametrize(
    ("words", "kind", "remedy"),
    [
        ("Requested CPUs are not available - requested 99, available: 0-1", "wrong-cpuset", "RUNNER=local"),
        ('could not select device driver "" with capabilities: [[gpu]]', "no-gpu-runtime", "GPUS=none"),
        ("failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=all", "no-gpu-runtime", "GPUS=none"),
        ("nvidia-container-cli: initialization error: nvml error", "no-gpu-runtime", "nvidia-smi"),
        ("write /var/lib/docker/tmp/x: no space left on device", "full-disk", "free space"),
        ("Minimum memory limit allowed is 6MB", "out-of-memory", "MEMORY=4g"),
        ("something new", "engine-refused", "something new"),
    ],
)
def test_what_engines_say_is_a_kind_and_a_remedy(words: str, kind: str, remedy: str) -> None:
    error = refusal(words)
    assert error.kind == kind
    assert remedy in str(error) and words in str(error)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ImageNotFound("No such image: compression-harness:cpu"), "missing-image"),
        (APIError("no space left on device"), "full-disk"),
        (DockerException("Connection aborted"), "engine-absent"),
        (ConnectionResetError("reset"), "engine-absent"),
    ],
)
def test_what_the_client_raises_is_worded(raised: Exception, kind: str) -> None:
    with pytest.raises(ContainerError) as caught, worded():
        raise raised
    assert caught.value.kind == kind


def test_an_answer_of_the_engine_is_told_in_its_own_words() -> None:
    response = Response()
    response.status_code = 400
    with pytest.raises(ContainerError, match="the engine refused: Bad mount"), worded():
        raise APIError("400 Client Error", response, explanation="Bad mount.\n")


def test_no_engine_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(ContainerError) as caught:
        connect()
    assert caught.value.kind == "engine-absent"
    assert f"unix://{tmp_path}/nobody.sock" in str(caught.value)
    assert "RUNNER=local" in str(caught.value) and "\n" not in str(caught.value)
