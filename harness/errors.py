"""The one exception whose text is meant for the user."""

import re

# A longer word is no word, and nobody reads it: its ends say what it is.
LONGEST_WORD, FIRST, LAST = 300, 200, 60
# A line begins with the cause and ends with the next step; what it quotes stands between.
LONGEST_LINE, CAUSE, NEXT_STEP = 1000, 600, 300
LONGEST = 4000


class HarnessError(Exception):
    """Something the user can put right; the message names the cause and the next step.

    The command line prints it as one line on stderr and exits with code 2; inside a matrix run it becomes the
    reason of a failed cell. So does an OSError: what the machine refuses is no defect of the harness either. Anything
    else that is raised is one, and keeps its traceback.

    A message quotes names and values from files, so it is made readable: what a terminal would act upon is spelled,
    and what goes on for pages is cut.
    """

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))


def readable(text: str) -> str:
    """Text of any origin as it can be shown on a terminal, of at most `LONGEST` characters; lines stay lines."""
    spelled = "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text
    )
    words = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _ends(word[0], FIRST, LAST), spelled)
    lines = re.sub(rf".{{{LONGEST_LINE + 1},}}", lambda line: _ends(line[0], CAUSE, NEXT_STEP), words)
    return lines if len(lines) <= LONGEST else _ends(lines, LONGEST // 2, LONGEST // 2 - 1)


def _ends(text: str, first: int, last: int) -> str:
    return f"{text[:first]}…{text[-last:]}"
