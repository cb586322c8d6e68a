"""The two images: what goes into them, whether the engine has them as this checkout describes them, and building them.

A Dockerfile's COPY lines are the one list of what an image contains. Those files, packed without dates and owners, are
the whole build context. Their hash is a label of the image, so an image with the right hash need not be built.
"""

import contextlib
import gzip
import hashlib
import io
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound
from docker.models.images import Image

from harness.containers.docker_engine import ContainerError, refusal, worded
from harness.errors import HarnessError
from harness.store.revision import revision

ROOT = Path(__file__).parents[2]
CONTENT = "compression-harness.content"
# The base image that was named when it was built, which need not be named again to use it.
BASE = "compression-harness.base"
# By this label an image, and whatever an interrupted build has left, can be found and removed.
SUBJECT = "compression-harness.image"


@dataclass(frozen=True)
class ImageSpec:
    """What an image is made of, by its name: `cpu` measures, `gpu` trains."""

    name: str
    root: Path = ROOT

    @property
    def tag(self) -> str:
        """What `docker images` shows."""
        return f"compression-harness:{self.name}"

    @property
    def dockerfile(self) -> Path:
        """The file that it is built from."""
        return self.root / f"Dockerfile.{self.name}"

    @property
    def files(self) -> list[Path]:
        """What goes into it, relative to the checkout, sorted. HarnessError where a COPY line names no file."""
        found = {self.dockerfile.relative_to(self.root)}
        for source in copied(self.dockerfile.read_text(encoding="utf-8")):
            matches = sorted(self.root.glob(source))
            if not matches:
                raise HarnessError(f"{self.dockerfile.name}: COPY {source}: no such file")
            found |= {file.relative_to(self.root) for match in matches for file in _files(match)}
        return sorted(found)

    @property
    def requirements(self) -> list[Path]:
        """Those of its files that list hash-pinned packages."""
        return [file for file in self.files if file.parts[0] == "requirements"]

    @property
    def environments(self) -> list[str]:
        """The Python environments that it has, by the names that they have in .venvs as well."""
        # that of isa.txt is needed while the image is built, and stays behind
        return [file.stem for file in self.requirements if file.stem != "isa"]

    def context(self) -> bytes:
        """The build context: a tar file that is the same, byte for byte, for the same files."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for file in self.files:
                content = (self.root / file).read_bytes()
                entry = tarfile.TarInfo(file.as_posix())
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
        return packed.getvalue()

    def content(self, base: str | None) -> str:
        """The hash of everything that decides what is in the image."""
        return hashlib.sha256(self.context() + (base or "").encode()).hexdigest()


CPU, GPU = ImageSpec("cpu"), ImageSpec("gpu")


@dataclass(frozen=True)
class Built:
    """An image as the engine has it."""

    spec: ImageSpec
    id: str
    size_bytes: int
    seconds: float | None = None

    @property
    def megabytes(self) -> float:
        """Its size in MB, as `docker images` shows it."""
        return self.size_bytes / 1e6


def copied(dockerfile: str) -> Iterator[str]:
    """The sources of a Dockerfile's COPY lines, except for copies from another stage."""
    joined = re.sub(r"\\\n", " ", dockerfile)
    for line in joined.splitlines():
        words = line.split()
        if words and words[0] == "COPY" and not any(word.startswith("--from") for word in words):
            yield from words[1:-1]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.name != "__pycache__":
        for child in path.iterdir():
            if child.is_dir() or child.suffix != ".pyc":
                yield from _files(child)


def present(client: docker.DockerClient, spec: ImageSpec, base: str | None = None) -> Built:
    """The image of this checkout; ContainerError where the engine has none, or an older one."""
    found = _find(client, spec)
    if found is None:
        raise ContainerError("missing-image", f"the engine has no image {spec.tag}; run: make images")
    if found.labels.get(CONTENT) != spec.content(base or base_image() or found.labels.get(BASE)):
        raise ContainerError(
            "missing-image", f"the image {spec.tag} is of another state of this checkout; run: make images"
        )
    return _built(spec, found)


def base_image() -> str | None:
    """The base image that BASE_IMAGE names, for machines that cannot reach the registry; None for the Dockerfiles'."""
    return os.environ.get("BASE_IMAGE") or None


def build(client: docker.DockerClient, spec: ImageSpec, say: Callable[[str], None], fresh: bool = False) -> Built:
    """The image, built where what goes into it has changed, or without any cache where `fresh`.

    Calls `say` with each step of a build.
    """
    base = base_image()
    if not fresh:
        try:
            return present(client, spec, base)
        except ContainerError as error:
            if error.kind != "missing-image":
                raise
    started = time.monotonic()
    pins = {name: hashlib.sha256((spec.root / name).read_bytes()).hexdigest() for name in spec.requirements}
    arguments = {
        "REVISION": revision(),
        "REQUIREMENTS_SHA256": ",".join(f"{name.stem}={digest}" for name, digest in pins.items()),
        **({"BASE_IMAGE": base} if base else {}),
    }
    labels = {CONTENT: spec.content(base), SUBJECT: spec.name, **({BASE: base} if base else {})}
    before = _find(client, spec)
    id_ = _build(client, spec, arguments, labels, fresh, say)
    if before is not None and before.id != id_:
        _forget(client, before)
    with worded():
        image = client.images.get(spec.tag)
    return _built(spec, image, time.monotonic() - started)


def _build(
    client: docker.DockerClient,
    spec: ImageSpec,
    arguments: Mapping[str, str],
    labels: Mapping[str, str],
    fresh: bool,
    say: Callable[[str], None],
) -> str:
    """Build, and return the new image's id. Intermediate containers are removed, whatever happens."""
    said: list[str] = []
    with worded():
        events = client.api.build(
            fileobj=io.BytesIO(gzip.compress(spec.context(), 1, mtime=0)),
            encoding="gzip",
            custom_context=True,
            dockerfile=spec.dockerfile.name,
            tag=spec.tag,
            buildargs=dict(arguments),
            labels=dict(labels),
            network_mode=os.environ.get("BUILD_NETWORK") or None,
            nocache=fresh,
            rm=True,
            forcerm=True,
            timeout=3600,
            decode=True,
        )
        for event in events:
            if "error" in event:
                raise _broken(spec, event["error"], said)
            for line in event.get("stream", "").splitlines():
                said.append(line)
                if line.startswith("Step "):
                    say(f"  {spec.name}: {line}")
        found = client.images.get(spec.tag)
    return str(found.id)


def _broken(spec: ImageSpec, error: str, said: list[str]) -> ContainerError:
    known = refusal(error)
    if known.kind != "engine-refused":
        return known
    last = "\n".join(line for line in said[-15:] if line.strip())
    return ContainerError(
        "build-failed",
        f"{spec.dockerfile.name}: {error.strip()}; the end of its output:\n{last}\n"
        "Where the build cannot reach a network, try BUILD_NETWORK=host; where it cannot reach the registry, name "
        "another base with BASE_IMAGE=...",
    )


def _find(client: docker.DockerClient, spec: ImageSpec) -> Image | None:
    with worded():
        try:
            return client.images.get(spec.tag)
        except ImageNotFound:
            return None


def _forget(client: docker.DockerClient, image: Image) -> None:
    """Remove an image whose name a new one has taken, unless a container still needs it."""
    with contextlib.suppress(APIError):
        client.images.remove(str(image.id))


def _built(spec: ImageSpec, image: Image, seconds: float | None = None) -> Built:
    return Built(spec, str(image.id), int(image.attrs["Size"]), seconds)
