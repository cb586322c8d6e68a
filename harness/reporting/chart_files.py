"""A drawn figure as SVG or PNG with a stamp in it, and what was stamped into a file.

The same figure gives the same bytes: neither dates nor versions are written.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from harness.reporting.chart_style import FONT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
Stamp = Callable[[str], str]
STAMP = "Source"
STAMPED = re.compile(rb"<!-- Source: (\w+) -->\n\Z")
TAG = re.compile(rb"<[^>]+>")
COLOUR = re.compile(rb"#[0-9a-f]{6}\b")
# More decimals of a coordinate than these cannot be seen, and nobody refers to the groups by their names.
NEEDLESS = (
    (re.compile(rb"(\d\.\d\d)\d+"), rb"\1"),
    (re.compile(rb' transform="rotate\(-0 [^"]*\)"'), b""),
    (re.compile(rb'(<g) id="[^"]*"'), rb"\1"),
    (re.compile(rb"font-family: '[^']*'; "), b""),
)
# Once for all texts; whoever has not got the font sees another one of the same widths.
FONTS = f'<svg font-family="{FONT}, Verdana, sans-serif"'.encode()


def as_svg(figure: "Figure") -> bytes:
    """A figure as SVG in which text is text."""
    svg = BytesIO()
    # what matplotlib would say of itself and of the day
    figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return re.sub(rb"(?m)^ +", b"", TAG.sub(lambda tag: _lean(tag[0]), svg.getvalue())).replace(b"<svg", FONTS, 1)


def recoloured(svg: bytes, colours: Mapping[str, str]) -> bytes:
    """The same picture in other colours, as drawing it again would give it; what it says is left alone."""
    others = {one.lower().encode(): other.lower().encode() for one, other in colours.items()}
    return TAG.sub(lambda tag: COLOUR.sub(lambda found: others.get(found[0], found[0]), tag[0]), svg)


def stamped_svg(svg: bytes, stamp: Stamp) -> bytes:
    """The picture as a file; `stamp` is given a hash of what can be seen in it."""
    return svg + f"<!-- {STAMP}: {stamp(_sha256(svg))} -->\n".encode()


def stamped_png(figure: "Figure", stamp: Stamp) -> bytes:
    """A figure as a PNG file; `stamp` is given a hash of its pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    image = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
    about, png = PngInfo(), BytesIO()
    about.add_text(STAMP, stamp(_sha256(image.tobytes())))
    image.save(png, format="PNG", dpi=(DPI, DPI), pnginfo=about)
    return png.getvalue()


def stamped(path: Path) -> tuple[str, str] | None:
    """The stamp of a file, and the hash of what can be seen in it; None where it is no picture of ours."""
    from PIL import Image

    try:
        if path.suffix == ".svg":
            content = path.read_bytes()
            found = STAMPED.search(content)
            return (found[1].decode(), _sha256(content[: found.start()])) if found else None
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get(STAMP)), _sha256(image.tobytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _lean(tag: bytes) -> bytes:
    for needless, left in NEEDLESS:
        tag = needless.sub(left, tag)
    return tag


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
