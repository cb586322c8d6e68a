"""Where a command runs. RUNNER=docker: in its image; local: on this machine; auto: in the image where one is ready."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from harness.errors import HarnessError

if TYPE_CHECKING:
    import docker

    from harness.containers.images import Built

RunnerName = Literal["auto", "docker", "local"]
SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True)
class Docker:
    """An engine that answers, and the image to run in."""

    client: "docker.DockerClient"
    image: "Built"


def choose(asked: str, image: Literal["cpu", "gpu"]) -> Docker | None:
    """The engine and the image to run in; None to run on this machine, for which `auto` prints the reason.

    Raises HarnessError where `docker` is asked for and there is no engine or no image.
    """
    if asked not in get_args(RunnerName):
        raise HarnessError(f"RUNNER {asked!r}: not one of {', '.join(get_args(RunnerName))}")
    if asked == "local":
        return None
    if asked == "auto" and not _engine_likely():
        _say("no Docker engine here")
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
        _say(re.sub(r"; (start it, )?(or )?use RUNNER=local$", "", str(error)))
        return None


def _engine_likely() -> bool:
    """Whether it is worth asking: an engine's address is given, or its socket is in the usual place."""
    context = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    return bool(os.environ.get("DOCKER_HOST")) or SOCKET.exists() or context.exists()


def _say(reason: str) -> None:
    print(f"RUNNER=auto: {reason}; running on this machine")
