"""What a pack is: a manifest, and files in parts that it names by their hashes."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import HarnessError
from harness.files import atomic_path, file_sha256

MANIFEST = "manifest.json"
WEIGHTS, ONNX = "weights.safetensors", "model.onnx"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# What becomes part of a path here has no separators in it.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Strict(BaseModel):
    """Unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Part(Strict):
    """A piece of a file; pieces are joined in the order of the manifest."""

    name: FileName
    bytes: int
    sha256: Sha256


class Packed(Strict):
    """One file of a cell's folder, in parts."""

    name: FileName
    bytes: int
    sha256: Sha256
    parts: list[Part]


class Half(Strict):
    """What half precision did: accuracies (%) on all test images before and after, and the weights that come of it.

    `weights_sha256` is that of the file that unpacking writes: the rounded numbers, in single precision again.
    """

    accuracy_pct: float
    accuracy_before_pct: float
    weights_sha256: Sha256


class Manifest(Strict):
    """What a pack holds. `weights_sha256` is that of the weights as they were trained, whatever `dtype` they are in."""

    schema_version: Literal[1] = 1
    cell: FileName
    title: str
    profile: FileName
    key: str
    dtype: Literal["float32", "float16"]
    weights_sha256: Sha256
    half: Half | None = None
    packed_at: str
    files: list[Packed]


def manifests(folders: Sequence[Path]) -> list[Path]:
    """Every manifest in these folders; HarnessError where one has none."""
    found = []
    for folder in folders:
        here = sorted(folder.rglob(MANIFEST))
        if not here:
            raise HarnessError(f"{folder}: no pack here (no {MANIFEST}); name the folder that `harness pack` wrote")
        found += here
    return found


def read_manifest(path: Path) -> Manifest:
    """A pack's manifest; HarnessError names the file and what is wrong with it."""
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise HarnessError(f"{path}: not a pack's manifest: {where + ': ' if where else ''}{first['msg']}") from error


def split(path: Path, folder: Path, size: int) -> Packed:
    """A file's parts, written into `folder`."""
    pieces: list[Part] = []
    whole, total = hashlib.sha256(), 0
    with path.open("rb") as file:
        while content := file.read(size):
            name = f"{path.name}.{len(pieces):03d}"
            (folder / name).write_bytes(content)
            pieces.append(Part(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
            whole.update(content)
            total += len(content)
    return Packed(name=path.name, bytes=total, sha256=whole.hexdigest(), parts=pieces)


def parts(folder: Path, file: Packed) -> Iterator[Path]:
    """A file's parts, each looked at; HarnessError on the first that is missing or damaged, before any is given."""
    whole, paths = hashlib.sha256(), []
    for part in file.parts:
        path = folder / part.name
        if not path.is_file():
            raise HarnessError(f"{path}: missing; carry all parts that {folder / MANIFEST} names")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise HarnessError(f"{path}: damaged (sha256 differs from the manifest's); carry it again")
        whole.update(content)
        paths.append(path)
    if whole.hexdigest() != file.sha256:
        raise HarnessError(f"{folder / MANIFEST}: the parts of {file.name} do not make the file that it names")
    return iter(paths)


def join(folder: Path, file: Packed, path: Path) -> None:
    """Write a file from its parts, atomically; HarnessError where the whole is not what the manifest says."""
    with atomic_path(path) as temporary:
        with temporary.open("wb") as whole:
            for part in parts(folder, file):
                whole.write(part.read_bytes())
        if file_sha256(temporary) != file.sha256:
            raise HarnessError(f"{path}: came out damaged; is the disk full?")
