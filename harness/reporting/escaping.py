"""Text from elsewhere (titles, notes, messages, names of devices) as it may be put into a table, a list or a line."""

import re

# What Markdown would take for markup. An underscore inside a word is none, nor is a bracket that no link can follow.
MARKUP = re.compile(r"[\\`*|~$]|\](?=[(\[:])|(?<![\w)])_|_(?!\w)")


def one_line(text: str, limit: int | None = None) -> str:
    """A text of any shape as one printable line, of at most `limit` characters."""
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return flat if limit is None or len(flat) <= limit else flat[: limit - 1] + "…"


def escaped(text: str) -> str:
    """A text as one line of Markdown that shows it as it is: what looks like markup, a tag or a comment is none."""
    return MARKUP.sub(r"\\\g<0>", one_line(text).replace("&", "&amp;").replace("<", "&lt;"))
