"""Pictures inside a page: thumbnails of images and charts, all as data URIs."""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

from PIL import Image

from ...data.digest import short_path
from ...data.errors import DataError
from ...data.images import data_uri, read_image, small_jpeg

#: Longest side of a thumbnail in pixels.
THUMBNAIL = 96
QUALITY = 78


class Thumbnail(NamedTuple):
    """An image in a page; ``uri`` is "" where it cannot be read."""

    uri: str
    name: str


class Thumbnails:
    """Makes thumbnails and remembers which images could not be read."""

    def __init__(self) -> None:
        self._made: dict[str, Thumbnail] = {}
        self._failed: list[str] = []

    def __call__(self, path: str) -> Thumbnail:
        """The thumbnail of an image file; a file that cannot be read has an empty ``uri``."""
        if path not in self._made:
            uri = ""
            try:
                uri = jpeg(read_image(path))
            except (DataError, OSError) as error:
                self._failed.append(str(error))
            self._made[path] = Thumbnail(uri, short_path(path))
        return self._made[path]

    def sentence(self) -> str:
        """What to say of the images that could not be read; "" if all could."""
        if not self._failed:
            return ""
        return f"{len(self._failed)} images of this page cannot be shown; the first: {self._failed[0]}"


def jpeg(image: Image.Image, longest: int = THUMBNAIL) -> str:
    """A data URI of the image, at most ``longest`` pixels wide and high."""
    content = small_jpeg(image, longest, quality=QUALITY, resample=Image.Resampling.BILINEAR)
    return data_uri("image/jpeg", content)


# ---------------------------------------------------------------------------- charts

DAY, NIGHT, GREY = "#e08a1e", "#2f5bb7", "#6b7280"
OF_DIRECTION = {"D2N": DAY, "N2D": NIGHT}
#: Colours of several lines, distinguishable without red and green.
COLOURS = ("#2f5bb7", "#e08a1e", "#0f9488", "#c0399f", "#6b7280", "#7c5ce0", "#a16207", "#0b7285")
STYLE: Any = {
    "svg.fonttype": "none",  # the reader's fonts have every script
    "svg.hashsalt": "dnreid",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
}


def chart(width: float = 3.8, height: float = 2.4) -> tuple[Any, Any]:
    """A figure of ``width`` x ``height`` inches and its axes, without any screen."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.subplots_adjust(0.62 / width, 0.48 / height, 1 - 0.12 / width, 1 - 0.12 / height)
        FigureCanvasSVG(figure)
        return figure, figure.subplots()


def subplots(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure and its panels ``[row][column]``, each of ``width`` x ``height`` inches, for `png`."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: Any) -> bytes:
    """The figure as a PNG file, the same bytes every time."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    return file.getvalue()


def svg(figure: Any) -> str:
    """The figure as a data URI, the same bytes every time."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's have it
        figure.savefig(file, format="svg", dpi=160, metadata={"Date": None, "Creator": None})
    return data_uri("image/svg+xml", file.getvalue())
