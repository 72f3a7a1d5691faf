"""The study in TensorBoard: curves, kept units, the table, the states of the steps.

`_study` holds texts and images, `_study/<kind>` the curves of one kind of ticket: runs are what
TensorBoard gives colours to. Written with TensorBoard's own protocol buffers, without torch. One
event file takes the place of the older ones; it opens with a restart mark, on which a TensorBoard
that is running drops what it has read. The step of a curve is the share of the encoder weights
removed, in thousandths. Images are those of the last report.
"""

import io
import math
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from bigtickets.analysis.report import finished_trials
from bigtickets.analysis.sections.means import mean_scores
from bigtickets.analysis.table import CELL, in_points
from bigtickets.analysis.writing.terminal import summary_table
from bigtickets.analysis.writing.words import percent
from bigtickets.files import write_bytes
from bigtickets.study.folder import RunFolder
from bigtickets.study.state import read_state

RUN = "_study"
PICTURES = ("curve", "difference", "heads", "neurons", "blocks", "gain", "size", "data")
Value = tuple[int, Summary.Value]
"""A step and what stands there."""


def write_study_view(folder: RunFolder) -> Path:
    """Write RUN/tb/_study anew and return that folder; InputError when no trial has finished."""
    table = finished_trials(folder)
    levels, home = mean_scores(in_points(table)), folder.tb / RUN
    _replace(home, [*_layouts(levels), *_texts(folder, table), *_images(folder.report)])
    for kind, rows in levels.groupby("kind"):
        _replace(home / str(kind), list(_curves(rows, levels)))
    return home


def _replace(home: Path, values: list[Value]) -> None:
    """Put one event file in the place of the older ones."""
    # TensorBoard reads every file with `tfevents` in its name, also one that grows.
    draft = home / f"next.{os.getpid()}"
    write_bytes(draft, _events(values))
    older = list(home.glob("*tfevents*"))
    os.replace(draft, home / f"events.out.tfevents.{time.time():.6f}.study")
    for path in older:
        path.unlink(missing_ok=True)


def _events(values: list[Value]) -> bytes:
    """The event file: version, restart mark, then each value at its step."""
    now = time.time()
    opening = [
        Event(wall_time=now, file_version="brain.Event:2"),
        Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)),
    ]
    summaries = (Event(wall_time=now, step=s, summary=Summary(value=[v])) for s, v in values)
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in (*opening, *summaries):
        writer.write(event.SerializeToString())
    return file.getvalue()


def _curves(rows: pd.DataFrame, levels: pd.DataFrame) -> Iterator[Value]:
    """Means of one kind, in points, with their intervals: a tag per model and task."""
    for cell, mine in rows.groupby(CELL, sort=False):
        stretched = mine["kind"].iloc[0] == "dense"
        yield from _line(_tag(*cell), _stretched(mine, levels) if stretched else mine)


def _line(tag: str, rows: pd.DataFrame) -> Iterator[Value]:
    """One curve; where there is no interval, its ends are the mean."""
    ends = rows[["low", "high"]].apply(lambda end: end.fillna(rows["mean"]))
    lines = {tag: rows["mean"], **{f"intervals/{tag}/{e}": ends[e] for e in ends}}
    for name, values in lines.items():
        for x, value in zip(rows["x"], values, strict=True):
            if math.isfinite(value):
                yield round(1000 * x), Summary.Value(tag=name, simple_value=100 * value)


def _stretched(dense: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """The dense model as a level line as far as the tickets go: one point is no line."""
    return pd.concat([dense, dense.assign(x=levels["x"].max())])


def _layouts(levels: pd.DataFrame) -> Iterator[Value]:
    """The Custom Scalars page: a chart with intervals per model, under its task."""
    charts: dict[str, list[layout_pb2.Chart]] = {}
    for cell in levels[CELL].drop_duplicates().itertuples(index=False, name=None):
        tag = _tag(*cell)
        series = layout_pb2.MarginChartContent.Series(
            value=tag, lower=f"intervals/{tag}/low", upper=f"intervals/{tag}/high"
        )
        chart = layout_pb2.Chart(title=tag, margin=layout_pb2.MarginChartContent(series=[series]))
        charts.setdefault(cell[1], []).append(chart)
    categories = [layout_pb2.Category(title=task, chart=mine) for task, mine in charts.items()]
    text = layout_pb2.Layout(category=categories).SerializeToString()
    yield 0, _tensor("custom_scalars__config__", "custom_scalars", b"", text, [])


def _texts(folder: RunFolder, table: pd.DataFrame) -> Iterator[Value]:
    """The table of means, how many steps are in which state, and how to read the curves."""
    counts = read_state(folder).counts
    states = "\n".join(
        ["| state | steps |", "|---|---:|", *(f"| {s} | {n} |" for s, n in counts.items())]
    )
    indented = "\n".join("    " + line for line in summary_table(table).splitlines())
    about = "Step of a curve: share of the prunable encoder weights removed, in thousandths. "
    about += "Values: points (score × 100, of a metric module as its task says), mean over seeds; "
    about += "intervals: 95 %, Student's t."
    for tag, text in (("about", about), ("states", states), ("means", indented)):
        plugin = TextPluginData(version=0).SerializeToString()
        yield 0, _tensor(f"{tag}/text_summary", "text", plugin, text.encode(), [1])


def _images(report: Path) -> Iterator[Value]:
    """The PNG files of the last report, grouped by what they show."""
    for what in PICTURES:
        for path in sorted((report / "figures").glob(f"{what}*.png")):
            png = path.read_bytes()
            width, height = struct.unpack(">II", png[16:24])
            image = Summary.Image(
                height=height, width=width, colorspace=4, encoded_image_string=png
            )
            yield 0, Summary.Value(tag=f"{what}/{path.stem}", image=image)


def _tensor(tag: str, plugin: str, content: bytes, text: bytes, shape: list[int]) -> Summary.Value:
    """A string tensor for one of TensorBoard's plugins."""
    data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    sizes = [TensorShapeProto.Dim(size=size) for size in shape]
    tensor = TensorProto(
        dtype="DT_STRING", string_val=[text], tensor_shape=TensorShapeProto(dim=sizes)
    )
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data), tensor=tensor)


def _tag(model: str, task: str, fraction: float) -> str:
    """task/model, with the share of the data; a slash inside a name would open another group."""
    names = (task, model if fraction == 1 else f"{model} {percent(fraction)}")
    return "/".join(name.replace("/", "_") for name in names)
