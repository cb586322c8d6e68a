import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.reporting.markers import Marker, fill, find_markers

DOCUMENT = """# Title

<!-- table: lite prune-0.3 -->
old
<!-- end -->

between

<!-- table: long seeds -->
<!-- end -->
after"""


def test_markers_are_found_with_their_lines() -> None:
    found = [(marker.profile, marker.experiment, marker.line) for marker in find_markers(DOCUMENT, "README.md")]
    assert found == [("lite", "prune-0.3", 3), ("long", "seeds", 9)]


def test_tables_are_filled_in_place_and_the_rest_is_kept() -> None:
    text, changed = fill(DOCUMENT, "README.md", lambda marker: f"table of {marker.experiment}\nsecond line\n")
    assert [marker.line for marker in changed] == [3, 9]
    assert text == DOCUMENT.replace("old", "\ntable of prune-0.3\nsecond line\n").replace(
        "long seeds -->\n", "long seeds -->\n\ntable of seeds\nsecond line\n\n"
    )


def test_a_marker_may_ask_for_a_short_table() -> None:
    text = "<!-- table: lite prune-0.3 short -->\n<!-- end -->\n<!-- table: lite prune-0.3 -->\n<!-- end -->"
    assert [marker.short for marker in find_markers(text, "README.md")] == [True, False]


def test_a_table_that_is_not_given_stays() -> None:
    assert fill(DOCUMENT, "README.md", lambda _: None) == (DOCUMENT, [])


BODY = st.lists(st.text(alphabet="ab |-", max_size=8), min_size=1, max_size=4).map("\n".join).filter(str.strip)


@given(first=BODY, second=BODY)
def test_filling_twice_changes_nothing(first: str, second: str) -> None:
    def render(marker: Marker) -> str:
        return first if marker.profile == "lite" else second

    text, _ = fill(DOCUMENT, "README.md", render)
    assert fill(text, "README.md", render) == (text, [])
    outside = [line for line in text.split("\n") if line in ("# Title", "between", "after")]
    assert outside == ["# Title", "between", "after"]


def test_a_marker_shown_as_an_example_is_left_alone() -> None:
    assert find_markers("```\n<!-- table: a b -->\n```\nand inline `<!-- table: a b -->` too", "README.md") == []


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("<!-- table: lite -->\n<!-- end -->", 1, "a profile and an experiment"),
        ("\n<!-- table: a b c -->\n<!-- end -->", 2, "a profile and an experiment"),
        ("<!-- table: lite prune-0.3 -->\nno end", 1, "has no end"),
        ("<!-- table: a b -->\n<!-- table: c d -->\n<!-- end -->", 1, "has no end"),
    ],
)
def test_a_malformed_marker_is_named_by_file_and_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(HarnessError, match=rf"README\.md:{line}: .*{reason}"):
        find_markers(text, "README.md")


def test_an_error_while_rendering_gets_file_and_line() -> None:
    def render(_: Marker) -> str:
        raise HarnessError("profile 'x' does not exist")

    with pytest.raises(HarnessError, match=r"README\.md:9: profile 'x' does not exist"):
        fill(DOCUMENT, "README.md", render)
