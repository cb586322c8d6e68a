import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.reporting.escaping import escaped, one_line


@given(st.text())
def test_any_text_becomes_one_bounded_printable_line(text: str) -> None:
    line = one_line(text, 40)
    assert len(line) <= 40
    assert line.isprintable()
    assert len(line.splitlines()) <= 1


def test_escape_codes_and_half_characters_do_not_get_through() -> None:
    assert one_line("a\x1b[31mb\ud800c\u2028d") == "a [31mb c d"


@pytest.mark.parametrize(
    "text",
    [
        "P(0.3_BN)_KD(3)_SEED(0)",
        "0.62 [0.61, 0.63]",
        "≈ 0.99 [0.97, 1.02]",
        "1/8 width",
        "l3_cache",
        "—",
        "10 % (CV): shared",
    ],
)
def test_what_is_no_markup_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", r"a \| b"),
        ("<!-- end -->", "&lt;!-- end -->"),
        ("&lt;", "&amp;lt;"),
        ("*a* _b_ `c` ~~d~~", r"\*a\* \_b\_ \`c\` \~\~d\~\~"),
        ("[a](b) [a][b] [a]: b", r"[a\](b) [a\][b] [a\]: b"),
        ("$5 and $6", r"\$5 and \$6"),
        (r"a \| b", r"a \\\| b"),
        ("a\n# b\n| c |", r"a # b \| c \|"),
    ],
)
def test_what_markdown_would_take_for_markup_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
