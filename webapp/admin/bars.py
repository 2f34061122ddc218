"""How a chart looks: stacked bars by pygal, in the colours of the pages. `charts` says what they show."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import pygal
from pygal.style import Style

# Importing pygal leaves a finder for its packages of maps behind, in a form that Python warns of at every later import.
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("pygal")]

WIDE, NARROW = (560, 180), (320, 160)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
COLOURS = Path(__file__).parent.parent / "static" / "charts.css"


def stacked_bars(
    kind: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    every: int,
    written: Callable[[float], str],
    narrow: bool = False,
) -> str:
    """An SVG of bars, one series upon the other. Its colours follow the reader's light or dark as the page does.

    :param kind: the class by which the styles know it.
    :param every: of the labels the last is written, and each so many before it.
    :param written: how a value stands at its axis.
    :param narrow: drawn for a telephone, where the same letters take more of the width.
    """
    width, height = NARROW if narrow else WIDE
    top = _top(max((sum(values) for values in zip(*series.values(), strict=True)), default=0))
    chart = pygal.StackedBar(
        js=[],
        no_prefix=True,
        classes=("pygal-chart", kind),
        css=["file://style.css", "file://graph.css", f"inline:{COLOURS.read_text()}"],
        style=Style(
            background="transparent",
            plot_background="transparent",
            opacity="1",
            font_family=FONT,
            label_font_size=11,
            major_label_font_size=11,
        ),
        width=width,
        height=height,
        range=(0, top),
        margin=4,
        margin_right=14,
        spacing=6,
        show_legend=False,
        show_minor_x_labels=False,
        truncate_label=-1,
        disable_xml_declaration=True,
    )
    chart.x_labels = labels
    chart.x_labels_major = list(labels[::-1][::every])
    chart.y_labels = [0, top / 2, top]
    chart.value_formatter = written
    for name, values in series.items():
        chart.add(name, values)
    chart.add_xml_filter(_without_scripts)
    return str(chart.render())


def _without_scripts(svg: Element) -> Element:
    """pygal writes its settings as a script, for tooltips that an image has not."""
    for parent in list(svg.iter()):
        for script in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(script)
    return svg


def _top(highest: float) -> float:
    """Where an axis ends: a round number that the highest bar stays under."""
    if highest <= 0:
        return 1
    step = 10.0 ** math.floor(math.log10(highest))
    return next(step * times for times in (1, 2, 4, 6, 8, 10) if step * times >= highest)
