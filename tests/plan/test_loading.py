from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.plan.loading import load_settings, profile_names
from tests.documents import PROFILES, ROOT, Load, put


@pytest.mark.parametrize("profile", PROFILES)
def test_the_projects_own_matrix_loads_in_every_profile(profile: str) -> None:
    assert load_settings(ROOT / "matrix.toml", profile).experiments


def test_the_profiles_are_those_of_the_file(tmp_path: Path) -> None:
    assert profile_names(ROOT / "matrix.toml") == PROFILES
    (tmp_path / "matrix.toml").write_text("profile = 1")
    assert profile_names(tmp_path / "matrix.toml") == []


def test_a_profile_overlays_key_by_key(load: Load, document: dict[str, Any]) -> None:
    put(document, "profile.quick.teacher", {"epochs": 7})
    quick, full = load(document, "quick"), load(document, "long")
    assert quick.teacher.epochs == 7
    assert quick.teacher.lr == full.teacher.lr
    assert full.teacher.epochs == document["teacher"]["epochs"]


def test_a_list_in_a_profile_replaces_the_list_below(load: Load, document: dict[str, Any]) -> None:
    put(document, "profile.quick.data.augment", ["flip"])
    assert load(document, "quick").data.augment == ["flip"]


@pytest.mark.parametrize("shared", ["experiment", "protocol"])
def test_experiments_and_protocols_are_shared_by_all_profiles(
    load: Load, document: dict[str, Any], shared: str
) -> None:
    put(document, f"profile.quick.{shared}", document[shared])
    with pytest.raises(HarnessError, match=r"profile\.quick: experiments and protocols are shared"):
        load(document)


def test_every_profile_is_checked_whichever_is_asked_for(load: Load, document: dict[str, Any]) -> None:
    put(document, "profile.reference.student.lr", 0)
    with pytest.raises(HarnessError, match=r"profile\.reference\.student\.lr"):
        load(document, "quick")


def test_an_unknown_profile_is_an_error_that_lists_the_known_ones(load: Load, document: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match=f"profile 'tiny' does not exist; allowed: {', '.join(PROFILES)}"):
        load(document, "tiny")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"nowhere\.toml: not found; .* --matrix"):
        load_settings(tmp_path / "nowhere.toml", "quick")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be read: it is a folder"):
        load_settings(tmp_path, "quick")


@pytest.mark.parametrize("content", [b"experiment = [[", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_invalid_toml_is_reported_as_such(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "matrix.toml"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"matrix\.toml: not (valid TOML|UTF-8 text)"):
        load_settings(path, "quick")
