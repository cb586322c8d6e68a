"""Hostile input, drawn from a seed, and what the harness makes of it: a result, or one line that says why not.

Whatever else comes of it is a fault of the harness: a traceback, a reason of several lines, or no end within
`PATIENCE_S`. Inputs are judged in this process, since a process for each would take a day for twenty thousand.
"""

import json
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from harness.errors import HarnessError

# Far above what any input of these takes.
PATIENCE_S = 60
# What people and broken programs leave where something else belongs.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, 5e-324, 10**400, -(10**5000), 2**31, 2**63, 2**64),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "a", "ä", "\x00", "\x1b[31m", "../../x", "/etc/passwd"),
    *("x" * 300, "x" * 100_000, "\n", "auto", "all", "own", "none", "base", "bn", "1e5", "<!-- end -->", "$x$", "%s"),
    *("{0}", "\\", [], {}, [[]], [{}], {"": 0}, [None], [1, "a"], ["base", "base"], [1] * 1000, {"a b": 1}),
    *({"parent": {}}, "2026-01-02", "2026-01-02T03:04:05+00:00", "999999999-01-01T00:00:00+00:00"),
)
# Pieces of text that parsers stumble over.
TEXTS = (
    *(
        "[" * 500,
        "{" * 3000,
        "]" * 10,
        "9" * 5000,
        "0x" + "f" * 5000,
        "1e999999",
        "nan",
        "-inf",
        "\ufeff",
        "\x00",
        "\r",
    ),
    *('"""', "'", '"\\ud800"', "\\u0000", "=", "= =", ".", "[[a]]\n", "[a.b.c]\n", "a.b.c = 1\n", "# é\n"),
    *("1979-05-27T07:32:00Z", "{}", "null", "\x7f", "\u202e", "😀"),
)


@dataclass
class Verdict:
    """What became of many inputs. `faults` names an input by its number and says what it led to."""

    taken: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.taken + self.refused + len(self.faults)

    def judge(self, what: str, use: Callable[[], Any]) -> None:
        """Use one input, and count what comes of it."""
        try:
            with _patience():
                use()
        except HarnessError as error:
            if wrong := unclear(str(error)):
                self.faults.append(f"{what}: {wrong}")
            else:
                self.refused += 1
        except Exception as error:
            self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]} {_place(error)}")
        else:
            self.taken += 1


def unclear(message: str) -> str:
    """What is wrong with an error's text: it is to be one printable line of bounded length. Empty where nothing is."""
    if len(message.splitlines()) != 1:
        return f"not one line: {message[:200]!r}"
    if len(message) > 2000:
        return f"{len(message)} characters: {message[:200]!r}"
    if not message.isprintable():
        return f"not printable: {message[:200]!r}"
    return ""


def _place(error: Exception) -> str:
    last = error.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    return f"({last.tb_frame.f_code.co_filename}:{last.tb_lineno})" if last else ""


@contextmanager
def _patience() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end within {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every item of nested tables and lists."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*here, key)
        yield from places(item, (*here, key))


def changed(document: Any, drawn: random.Random) -> Any:
    """A copy of a document in which one to three items have been replaced, removed, added, moved or doubled."""
    document = deepcopy(document)
    for _ in range(drawn.choice((1, 1, 1, 2, 3))):
        every = list(places(document))
        if not every:
            break
        place = drawn.choice(every)
        above, last = document, place[-1]
        for part in place[:-1]:
            above = above[part]
        how = drawn.randrange(6)
        if how == 0:
            del above[last]
        elif how == 1 and isinstance(above, dict):
            above[drawn.choice(("", "a b", "epochs", "x" * 70, "é", "\x00", "__class__", "."))] = drawn.choice(VALUES)
        elif how == 2:
            other = document
            for part in drawn.choice(every)[:-1]:
                other = other[part] if not isinstance(other, list) or part < len(other) else other
                if not isinstance(other, dict | list):
                    break
            above[last] = deepcopy(other) if len(repr(other)) < 10_000 else None
        elif how == 3 and isinstance(above[last], int | float) and not isinstance(above[last], bool):
            above[last] = drawn.choice((-above[last], above[last] * 1000, above[last] / 7, str(above[last])))
        elif how == 4 and isinstance(above[last], list):
            above[last] = above[last] * 2 or [0]
        else:
            above[last] = deepcopy(drawn.choice(VALUES))
    return document


def damaged(content: bytes, drawn: random.Random) -> bytes:
    """Bytes that have been cut short, flipped, doubled, emptied or overwritten in a few places."""
    found = bytearray(content)
    for _ in range(drawn.choice((1, 1, 2, 4))):
        at = drawn.randrange(len(found) + 1)
        how = drawn.randrange(7)
        if how == 0:
            del found[at:]
        elif how == 1 and at < len(found):
            found[at] ^= 1 << drawn.randrange(8)
        elif how == 2:
            found[at:at] = drawn.choice(TEXTS).encode("utf-8", "surrogatepass")
        elif how == 3:
            found[at:at] = drawn.randbytes(drawn.randrange(1, 9))
        elif how == 4:
            found[at : at + drawn.randrange(1, 200)] = b""
        elif how == 5:
            end = at + drawn.randrange(1, 200)
            found[at:at] = found[at:end]
        else:
            size = drawn.choice((1, 4, 8))
            found[at : at + size] = drawn.choice((b"\x00", b"\xff", b"\x7f")) * size
    return bytes(found)


def as_json(document: Any) -> bytes:
    """A document as JSON that a broken program may have written: NaN, half characters and large numbers as they are."""
    # numbers of any length: Python limits what it converts, and others do not
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(document, indent=1, default=str).encode()
    finally:
        sys.set_int_max_str_digits(before)


def hostile(document: Any, text: Callable[[Any], bytes], drawn: random.Random) -> bytes:
    """A document that has been changed in its structure or, as often, in its text."""
    if drawn.random() < 0.5:
        try:
            return text(changed(document, drawn))
        except ValueError:
            # a number that Python will not spell
            return damaged(text(document), drawn)
    return damaged(text(document), drawn)
