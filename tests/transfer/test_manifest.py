import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.transfer.manifest import MANIFEST, Manifest, checked_parts, join, manifests, read_manifest, split


@given(content=st.binary(max_size=200), size=st.integers(min_value=1, max_value=300))
def test_a_file_is_the_same_after_it_was_split_and_joined(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    (folder / "whole").write_bytes(content)
    packed = split(folder / "whole", folder, size)
    assert [part.bytes for part in packed.parts[:-1]] == [size] * (len(packed.parts) - 1)
    assert sum(part.bytes for part in packed.parts) == packed.bytes == len(content)
    assert len(checked_parts(folder, packed)) == -(-len(content) // size)
    join(folder, packed, folder / "again", packed.sha256)
    assert (folder / "again").read_bytes() == content


def test_a_file_whose_hash_is_not_the_expected_one_takes_no_place(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"other content")
    packed = split(tmp_path / "whole", tmp_path, 5)
    target = tmp_path / "target"
    target.write_bytes(b"as it was")
    with pytest.raises(HarnessError, match=r"target: not put in place: .* expected 000000000000"):
        join(tmp_path, packed, target, "0" * 64)
    assert target.read_bytes() == b"as it was"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_part_of_another_size_is_damaged_and_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"0123456789")
    packed = split(tmp_path / "whole", tmp_path, 5)
    with (tmp_path / "whole.001").open("ab") as file:
        # a sparse file: a terabyte that takes no space, and that nobody could read
        file.truncate(2**40)
    with pytest.raises(HarnessError, match=r"whole\.001: damaged"):
        checked_parts(tmp_path, packed)


def document(**changes: object) -> dict[str, object]:
    file = {"name": "weights.safetensors", "bytes": 0, "sha256": "0" * 64, "parts": []}
    return {
        "cell": "teacher-s0",
        "title": "ResNet50",
        "profile": "quick",
        "key": "v2-0123456789abcdef",
        "dtype": "float32",
        "weights_sha256": "0" * 64,
        "packed_at": "2026-01-02T03:04:05+00:00",
        "files": [file],
        **changes,
    }


HALF = {"accuracy_pct": 75.0, "accuracy_before_pct": 75.0, "weights_sha256": "0" * 64}


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(document(dtype="float16", half=HALF)))
    manifest = read_manifest(path)
    assert manifest == Manifest.model_validate_json(manifest.model_dump_json())


FILE = {"name": "answers.npy", "bytes": 0, "sha256": "0" * 64, "parts": []}
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "a cell that is a path": ({"cell": "../../teacher"}, "cell: "),
    "a profile that is a path": ({"profile": "../full"}, "profile: "),
    "a file that is a path": ({"files": [{**FILE, "name": "../answers.npy"}]}, r"files\.0\.name: "),
    "a hidden file": ({"files": [{**FILE, "name": ".lock"}]}, r"files\.0\.name: "),
    "a part that is a path": (
        {"files": [{**FILE, "parts": [{"name": "/etc/passwd", "bytes": 1, "sha256": "0" * 64}]}]},
        r"files\.0\.parts\.0\.name: ",
    ),
    "a negative size": ({"files": [{**FILE, "bytes": -1}]}, r"files\.0\.bytes: "),
    "a hash that is none": ({"weights_sha256": "abc"}, "weights_sha256: "),
    "a file twice": ({"files": [FILE, FILE]}, "files: a file is named twice"),
    "half precision without its figures": ({"dtype": "float16"}, "half: belongs to a pack in float16"),
    "figures of half precision on whole weights": ({"half": HALF}, "half: belongs to a pack in float16"),
    "more than all images right": (
        {"dtype": "float16", "half": {**HALF, "accuracy_pct": 146.0}},
        r"half\.accuracy_pct: ",
    ),
    "an accuracy that is no number": (
        {"dtype": "float16", "half": {**HALF, "accuracy_pct": float("nan")}},
        r"half\.accuracy_pct: ",
    ),
    "an unknown key": ({"run": "rm -rf /"}, "run: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_manifest_that_says_something_impossible_is_refused(tmp_path: Path, name: str) -> None:
    changes, reason = REFUSED[name]
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(document(**changes)))
    with pytest.raises(HarnessError, match=f"not a pack's manifest: {reason}"):
        read_manifest(path)


def test_a_folder_without_a_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"no pack here \(no manifest\.json\)"):
        manifests([tmp_path])


def test_packs_are_not_looked_for_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / MANIFEST).write_text(json.dumps(document()))
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HarnessError, match="no pack here"):
        manifests([tmp_path / "packs"])
    (tmp_path / "packs" / MANIFEST).symlink_to(tmp_path / "elsewhere" / MANIFEST)
    (path,) = manifests([tmp_path / "packs"])
    with pytest.raises(HarnessError, match="a link leads out of"):
        read_manifest(path)


def test_a_part_behind_a_link_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "whole").write_bytes(b"0123456789")
    packed = split(folder / "whole", folder, 5)
    (folder / "whole.001").rename(tmp_path / "outside")
    (folder / "whole.001").symlink_to(tmp_path / "outside")
    assert file_sha256(folder / "whole.001") == packed.parts[1].sha256
    with pytest.raises(HarnessError, match=r"whole\.001: a link leads out of"):
        checked_parts(folder, packed)
