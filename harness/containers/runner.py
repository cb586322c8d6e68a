"""Where a command runs. RUNNER=docker: in its image; local: on this machine; auto: in the image where one is ready."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from harness.errors import HarnessError

if TYPE_CHECKING:
    import docker

    from harness.containers.images import Built

RunnerName = Literal["auto", "docker", "local"]
SOCKET = Path("/var/run/docker.sock")
NO_LIMITS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Docker:
    """An engine that answers, and the image to run in."""

    client: "docker.DockerClient"
    image: "Built"


def choose(asked: str, image: Literal["cpu", "gpu"], limits: Mapping[str, str] = NO_LIMITS) -> Docker | None:
    """The engine and the image to run in; None to run on this machine, for which `auto` prints the reason.

    `limits` are the options that only a container has (MEMORY, GPUS), by name; empty is not given. On this machine they
    have no effect: with `local` that is a HarnessError, and `auto` says so. Raises HarnessError as well where `docker`
    is asked for and there is no engine or no image.
    """
    if asked not in get_args(RunnerName):
        raise HarnessError(f"RUNNER {asked!r}: not one of {', '.join(get_args(RunnerName))}")
    given = ", ".join(f"{name}={value}" for name, value in limits.items() if value)
    if asked == "local":
        if given:
            raise HarnessError(f"{given}: has no effect with RUNNER=local; leave it out, or use RUNNER=docker")
        return None
    found = _find(asked, image)
    if found is None and given:
        _say(f"{given} has no effect without a container")
    return found


def _find(asked: str, image: Literal["cpu", "gpu"]) -> Docker | None:
    if asked == "auto" and not _engine_likely():
        _say("no Docker engine here; running on this machine")
        return None
    # The client takes a third of a second to import, which a local run need not wait for.
    from harness.containers.docker_engine import ContainerError, connect
    from harness.containers.images import CPU, GPU, present

    try:
        client = connect()
        return Docker(client, present(client, {"cpu": CPU, "gpu": GPU}[image]))
    except ContainerError as error:
        if asked == "docker":
            raise
        # The remedies are for those who wanted the container.
        reason = re.sub(r"; (start it, )?(or )?use RUNNER=local$", "", str(error))
        _say(f"{reason}; running on this machine")
        return None


def _engine_likely() -> bool:
    """Whether it is worth asking: an engine is named, or its socket is in the usual place."""
    named = bool(os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT"))
    # pathlib raises an error for a user who has no home
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111
    config = Path(folder) / "config.json"
    return named or _exists(SOCKET) or _exists(config)


def _exists(path: Path) -> bool:
    """Whether a file is there, as far as this user may look."""
    try:
        return path.exists()
    except OSError:
        return False


def _say(text: str) -> None:
    print(f"RUNNER=auto: {text}")
