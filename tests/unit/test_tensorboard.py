"""The study in TensorBoard, read back with TensorBoard's own reader."""

from pathlib import Path

import pytest
from _synthetic_run import make_run, reported_run, study
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from bigtickets.analysis.sections.means import mean_scores
from bigtickets.analysis.table import read_table
from bigtickets.analysis.tensorboard import write_study_view
from bigtickets.errors import InputError


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


@pytest.fixture(scope="module")
def home() -> Path:
    return write_study_view(reported_run())


def test_a_run_for_the_study_and_one_per_kind(home: Path) -> None:
    assert home == reported_run().tb / "_study"
    assert {p.parent.relative_to(home).name for p in home.rglob("*tfevents*")} == {
        "",
        "dense",
        "winning",
        "random",
    }


def test_curves_are_the_means(home: Path) -> None:
    levels = mean_scores(read_table(reported_run())).query("model == 'L6' and kind == 'winning'")
    points = read(home / "winning").Scalars("tweets/L6")
    assert [p.step for p in points] == [round(1000 * x) for x in levels["x"]]
    assert [p.value for p in points] == pytest.approx(list(100 * levels["mean"]), rel=1e-5)
    low = read(home / "winning").Scalars("intervals/tweets/L6/low")
    assert [p.value for p in low] == pytest.approx(list(100 * levels["low"]), rel=1e-5)


def test_the_dense_model_is_a_level_line(home: Path) -> None:
    points = read(home / "dense").Scalars("tweets/L3")
    assert points[0].step == 0 < points[1].step
    assert points[0].value == points[1].value


def test_texts_images_and_layout(home: Path) -> None:
    events = read(home)
    states = events.Tensors("states/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| failed | 1 |" in states
    assert "heads/heads-L3-tweets" in events.Tags()["images"]
    image = events.Images("heads/heads-L3-tweets")[0]
    assert image.encoded_image_string[:4] == b"\x89PNG"
    assert image.width > image.height > 100
    config = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(config)
    assert [c.title for c in layout.category] == ["tweets"]
    assert [c.title for c in layout.category[0].chart] == ["tweets/L3", "tweets/L6"]


def test_writing_again_takes_the_place_of_the_old(home: Path) -> None:
    before = {p.name for p in home.rglob("*tfevents*")}
    events = read(home / "winning")
    write_study_view(reported_run())
    after = {p.name for p in home.rglob("*tfevents*")}
    assert len(after) == len(before)
    assert not after & before
    events.Reload()  # a reader that has seen the old file
    steps = [p.step for p in events.Scalars("tweets/L6")]
    assert steps == sorted(set(steps))
    assert not [p for p in home.rglob("*") if p.name.startswith("next")]


def test_no_trial_is_an_input_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", study(), keep=lambda step: False)
    with pytest.raises(InputError, match="no trial has finished"):
        write_study_view(folder)
    assert not folder.tb.exists()
