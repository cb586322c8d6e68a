import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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
def test_what_engines_write_becomes_a_kind_and_a_remedy(words: str, kind: str, remedy: str) -> None:
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
def test_what_the_client_raises_becomes_a_container_error(raised: Exception, kind: str) -> None:
    with pytest.raises(ContainerError) as caught, worded():
        raise raised
    assert caught.value.kind == kind


def test_an_unknown_refusal_is_passed_on_in_the_words_of_the_engine() -> None:
    response = Response()
    response.status_code = 400
    with pytest.raises(ContainerError, match="the engine refused: Bad mount"), worded():
        raise APIError("400 Client Error", response, explanation="Bad mount.\n")


def test_a_missing_engine_is_one_line_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(ContainerError) as caught:
        connect()
    assert caught.value.kind == "engine-absent"
    assert f"unix://{tmp_path}/nobody.sock" in str(caught.value)
    assert "RUNNER=local" in str(caught.value) and "\n" not in str(caught.value)


class Broken(BaseHTTPRequestHandler):
    """An engine that answers some requests with an error."""

    sound: ClassVar[set[str]]

    def do_GET(self) -> None:
        sound = self.path.rpartition("/")[2] in self.sound
        body = b'{"ApiVersion": "1.44"}' if sound else b'{"message": "the graph driver is damaged"}'
        self.send_response(200 if sound else 500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("sound", [set(), {"version"}])
def test_an_engine_that_answers_with_an_error_is_not_an_absent_one(
    monkeypatch: pytest.MonkeyPatch, sound: set[str]
) -> None:
    Broken.sound = sound
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        with pytest.raises(ContainerError, match="the engine refused: the graph driver is damaged") as caught:
            connect()
        server.shutdown()
    assert caught.value.kind == "engine-refused"
