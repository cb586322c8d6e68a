import hashlib
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import certifi
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


# --- Where the docker command would look -----------------------------------------------------------------------------


class Engine(BaseHTTPRequestHandler):
    """An engine that is rootless, which `connect` finds out from its answers and refuses."""

    def do_GET(self) -> None:
        sound = b'{"ApiVersion": "1.44"}'
        body = b'{"SecurityOptions": ["name=rootless"], "OSType": "linux"}' if self.path.endswith("info") else sound
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, cert.pem and key.pem of 127.0.0.1, its own authority."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    shutil.copy(folder / "cert.pem", folder / "ca.pem")
    return folder


@pytest.fixture
def secured(certificates: Path) -> Iterator[str]:
    """The address of an engine that answers only those who have a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of docker's settings, and none of its variables."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    # authorities of a company's proxy, which have nothing to do with the engine
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, certifi.where())
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def add_context(config: Path, name: str, host: str, certificates: Path | None = None) -> None:
    """What `docker context create` writes."""
    place = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts/meta" / place
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if certificates:
        shutil.copytree(certificates, config / "contexts/tls" / place / "docker")


def found(where: str) -> bool:
    """Whether `connect` comes to the engine there."""
    with pytest.raises(ContainerError) as caught:
        connect()
    return caught.value.kind == "engine-unusable" and f"the engine at {where} is rootless" in str(caught.value)


def test_an_engine_behind_certificates_is_reached_by_variables(
    config: Path, secured: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", secured)
    assert not found(secured), "it answers nobody without a certificate"
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    assert found(secured)


@pytest.mark.parametrize("by", ["variable", "use"])
def test_an_engine_behind_certificates_is_reached_by_a_context(
    config: Path, secured: str, certificates: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    add_context(config, "far", secured, certificates)
    add_context(config, "nobody", "unix:///nobody.sock")
    if by == "variable":
        (config / "config.json").write_text('{"currentContext": "nobody"}')
        monkeypatch.setenv("DOCKER_CONTEXT", "far")
    else:
        (config / "config.json").write_text('{"currentContext": "far"}')
    assert found(secured)
    # the host is named more closely than a context
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody.sock")
    assert not found(secured)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_context_that_cannot_be_read_is_named_and_no_other_engine_is_used(
    config: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    if damage == "damaged":
        add_context(config, "far", "unix:///nobody.sock")
        (next((config / "contexts/meta").iterdir()) / "meta.json").write_text("{")
    with pytest.raises(
        ContainerError, match=r"docker context 'far': .*`docker context ls`.*; or use RUNNER=local"
    ) as caught:
        connect()
    assert caught.value.kind == "engine-absent" and "\n" not in str(caught.value)


def test_certificates_that_are_missing_are_one_line(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(config))
    with pytest.raises(ContainerError, match="certificate") as caught:
        connect()
    assert caught.value.kind == "engine-absent"
