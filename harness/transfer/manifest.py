"""What a pack is: a manifest, and files in parts that it names by their hashes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.errors import HarnessError
from harness.files import MOST_TEXT_BYTES, atomic_path, file_sha256, read_bytes
from harness.transfer.foreign_files import require_file_inside

MANIFEST = "manifest.json"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# What becomes part of a path has no separators in it, and is not hidden.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Bytes = Annotated[int, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Strict(BaseModel):
    """Unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Part(Strict):
    """A piece of a file; pieces are joined in the order of the manifest."""

    name: FileName
    bytes: Bytes
    sha256: Sha256


class Packed(Strict):
    """One file of a cell's folder, in parts."""

    name: FileName
    bytes: Bytes
    sha256: Sha256
    parts: list[Part]


class Half(Strict):
    """What half precision did: accuracies (%) on all test images before and after, and the weights that come of it.

    `weights_sha256` is that of the file that unpacking writes: the rounded numbers, in single precision again.
    """

    accuracy_pct: Percent
    accuracy_before_pct: Percent
    weights_sha256: Sha256


class Manifest(Strict):
    """What a pack holds. `key` is that of the model's training, and `weights_sha256` that of the weights as they were
    trained, whatever `dtype` they are in.
    """

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

    @field_validator("files")
    @classmethod
    def _distinct(cls, files: list[Packed]) -> list[Packed]:
        if len({file.name for file in files}) != len(files):
            raise ValueError("a file is named twice")
        return files

    @model_validator(mode="after")
    def _says_what_half_precision_did(self) -> "Manifest":
        if (self.dtype == "float16") != (self.half is not None):
            raise ValueError("half: belongs to a pack in float16, and to no other")
        return self


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
    require_file_inside(path.parent, path)
    try:
        return Manifest.model_validate_json(read_bytes(path, most=MOST_TEXT_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise HarnessError(f"{path}: not a pack's manifest: {where + ': ' if where else ''}{reason}") from error


def split(path: Path, folder: Path, size: int) -> Packed:
    """Write a file into `folder` in parts of at most `size` bytes."""
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


def checked_parts(folder: Path, file: Packed) -> list[Path]:
    """The parts of a file, in order; HarnessError on the first that is missing, damaged, or outside the folder."""
    whole, paths = hashlib.sha256(), []
    for part in file.parts:
        path = folder / part.name
        if not path.exists():
            raise HarnessError(f"{path}: missing; copy all parts that {folder / MANIFEST} names")
        require_file_inside(folder, path)
        # the size first: a part is read whole
        content = path.read_bytes() if path.stat().st_size == part.bytes else b""
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise HarnessError(f"{path}: damaged (its SHA-256 is not the manifest's); copy it again")
        whole.update(content)
        paths.append(path)
    if whole.hexdigest() != file.sha256:
        raise HarnessError(f"{folder / MANIFEST}: the parts of {file.name} do not make the file that it names")
    return paths


def join(folder: Path, file: Packed, path: Path, expected: str) -> None:
    """Write a file from its parts; it takes its place only if the hash of what was written is the `expected` one."""
    with atomic_path(path) as temporary:
        with temporary.open("wb") as whole:
            for part in checked_parts(folder, file):
                whole.write(part.read_bytes())
        if (found := file_sha256(temporary)) != expected:
            raise HarnessError(
                f"{path}: not put in place: came out with SHA-256 {found[:12]}..., expected {expected[:12]}..."
            )
