"""The Docker engine: finding it, and telling the user what it refuses.

Whatever goes wrong with an engine is a ContainerError: its kind says what it was, and its message what to do about it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import docker
from docker.context.config import get_current_context_name
from docker.errors import APIError, DockerException, ImageNotFound

from harness.errors import HarnessError

# For calls that are answered at once; attaching and waiting have no limit.
TIMEOUT_S = 60
# By these variables the client's HTTP library would check an engine's certificate against another authority than the
# one that docker's own settings name; the docker command does not know them.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
ErrorKind = Literal[
    "engine-absent",
    "engine-unusable",
    "engine-refused",
    "missing-image",
    "out-of-memory",
    "killed",
    "full-disk",
    "wrong-cpuset",
    "no-gpu-runtime",
    "open-container",
    "build-failed",
]
# What engines from 20.10 on write, with its kind and what to do about it.
REFUSALS: dict[str, tuple[ErrorKind, str]] = {
    "no space left on device": ("full-disk", "free space there (docker system df shows what takes it), then repeat"),
    "requested cpus are not available": (
        "wrong-cpuset",
        "the engine may not use those CPUs; give it all of the machine's, or use RUNNER=local",
    ),
    "could not select device driver": (
        "no-gpu-runtime",
        "install the NVIDIA container toolkit and restart the engine, or train on the CPU with GPUS=none",
    ),
    "unresolvable cdi devices": (
        "no-gpu-runtime",
        "install the NVIDIA container toolkit (nvidia-ctk cdi generate), or train on the CPU with GPUS=none",
    ),
    "nvidia-container-cli": (
        "no-gpu-runtime",
        "make sure that nvidia-smi works on this machine, or train on the CPU with GPUS=none",
    ),
    "minimum memory limit": ("out-of-memory", "give the container more memory: MEMORY=4g"),
}


class ContainerError(HarnessError):
    """What went wrong with the engine, an image or a container, as a kind and as a message with its remedy."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def connect() -> docker.DockerClient:
    """The engine that the docker command reaches from here: DOCKER_HOST and its TLS variables, or else a context.

    Raises ContainerError where none answers ("engine-absent"), where one answers with an error, and where one cannot be
    used here ("engine-unusable").
    """
    where = _address()
    for name in CERTIFICATES:
        os.environ.pop(name, None)
    try:
        # the client's own reading of the variables and of contexts, certificates included; ssh as the command has it
        client = docker.from_env(timeout=TIMEOUT_S, use_ssh_client=True)
        info: dict[str, Any] = client.info()
    except (DockerException, OSError) as error:
        # One that answers with an error is not absent but broken. Asking for its version wraps that error.
        if isinstance(answer := error if isinstance(error, APIError) else error.__cause__, APIError):
            raise refusal(_reason(answer)) from error
        raise ContainerError(
            "engine-absent",
            f"no Docker engine answers at {where} ({_reason(error)}); start it, or use RUNNER=local",
        ) from error
    options = info.get("SecurityOptions") or []
    if any("rootless" in option for option in options):
        # The one user of a rootless engine that may write to the caller's folders is root inside the container.
        raise ContainerError(
            "engine-unusable",
            f"the engine at {where} is rootless: a container that is not root cannot write here; use RUNNER=local",
        )
    if info.get("OSType") != "linux":
        raise ContainerError("engine-unusable", f"the engine at {where} runs no Linux containers; use RUNNER=local")
    return client


def _address() -> str:
    """Where that engine is: at DOCKER_HOST, or where DOCKER_CONTEXT or else `docker context use` points.

    ContainerError where there is no such context: the client would go on to the default one.
    """
    if host := os.environ.get("DOCKER_HOST"):
        return host
    name = os.environ.get("DOCKER_CONTEXT") or get_current_context_name()
    try:
        context = docker.ContextAPI.get_context(name)
        reason = "" if context else "there is none of this name"
    except Exception as error:  # the client raises plain exceptions here
        context, reason = None, " ".join(str(error).split())
    if context is None:
        raise ContainerError(
            "engine-absent",
            f"docker context {name!r}: {reason} (`docker context ls` lists them); or use RUNNER=local",
        )
    return str(context.Host or "unix:///var/run/docker.sock").removeprefix("http+")


@contextmanager
def worded() -> Iterator[None]:
    """Turn the exceptions of the engine's client into a ContainerError."""
    try:
        yield
    except ImageNotFound as error:
        raise ContainerError("missing-image", f"{_reason(error)}; run: make images") from error
    except APIError as error:
        raise refusal(_reason(error)) from error
    except (DockerException, OSError) as error:
        raise ContainerError(
            "engine-absent", f"the Docker engine is gone ({_reason(error)}); start it again, then repeat"
        ) from error


def refusal(text: str) -> ContainerError:
    """The ContainerError that an engine's own words stand for."""
    for words, (kind, remedy) in REFUSALS.items():
        if words in text.lower():
            return ContainerError(kind, f"{text}; {remedy}")
    return ContainerError("engine-refused", f"the engine refused: {text}; or use RUNNER=local")


def _reason(error: BaseException) -> str:
    text = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    return " ".join(str(text).split()).rstrip(".")
