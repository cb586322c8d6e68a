"""The page as bytes: the document of a profile, in a template with its script, its style and the libraries.

DataTables lies beside the template; Vega comes with vl-convert. The same records give the same bytes, and nothing in
them is fetched: a policy in the page forbids it.
"""

import json
import re
from functools import cache
from html import escape
from pathlib import Path
from threading import Lock, Thread

from harness.plan.planning import Plan
from harness.reporting.page.content import content
from harness.reporting.page.origins import JSON
from harness.reporting.reading import Reading

ASSETS = Path(__file__).with_name("assets")
# One module in the page, in this order.
SCRIPTS = ("elements", "view", "table", "origin", "chart", "downloads", "start")
# What the script of the page uses of Vega.
FROM_VEGA = "window.vegaEmbed = vegaEmbed;"
_BUNDLING = Lock()


def page_path(results: Path, plan: Plan) -> Path:
    """Where a profile's page lies."""
    return results / plan.profile / "report.html"


def page(reading: Reading) -> bytes:
    """The page of a profile: all of its experiments, whichever the plan of the reading is of."""
    return page_of(content(reading))


def page_of(document: JSON) -> bytes:
    """The page of a document."""
    parts = {
        "title": escape(f"Profile {document['profile']}: accuracy and latency of compressed networks"),
        "style": _asset("page.css"),
        # ASCII, since a record may hold what UTF-8 cannot; and no tag in a title may end the element
        "document": json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "vega": _in_script(vega()),
        "datatables": _in_script(_asset("datatables.min.js")),
        "script": _in_script("\n".join(_asset(f"script/{name}.js") for name in SCRIPTS)),
    }
    # Split, not replaced one after the other: what is filled in may itself look like a place to fill in.
    first, *pieces = _asset("page.html").split("{{")
    filled = [first]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled).encode()


def begin() -> None:
    """Begin with what takes longest and follows from no record; whoever needs it waits for what is left of it."""
    Thread(target=vega, daemon=True).start()


def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one JavaScript module that needs no other."""
    with _BUNDLING:
        return _bundle()


@cache
def _bundle() -> str:
    # It takes seconds, which no other verb should have to wait for.
    import vl_convert

    return vl_convert.javascript_bundle(FROM_VEGA)


def _in_script(code: str) -> str:
    """Code as it may stand in a script element: tags in its strings neither end the element nor comment it out."""
    return re.sub("<(/script|!--)", r"\\x3C\1", code, flags=re.IGNORECASE)


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
