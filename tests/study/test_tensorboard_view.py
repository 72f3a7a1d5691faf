"""A running TensorBoard over the folder of a study of 500 trials, asked as a browser asks it.

Nothing here asserts a time; `-s` prints how long the first view took.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imsave

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from _synthetic_run import make_run, study

from bigtickets.analysis.tensorboard import PICTURES, write_study_view
from bigtickets.study.folder import RunFolder
from bigtickets.study.state import read_manifest
from bigtickets.training.loop import LOG_LINES
from bigtickets.training.metrics_log import MetricsLog

pytestmark = pytest.mark.study
RATIOS = (0.0, *(round(0.07 * i, 2) for i in range(1, 13)))
PATIENCE_S = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two models, two tasks, 25 points of five seeds: 500 trials, with what each leaves behind."""
    root = tmp_path_factory.mktemp("tensorboard")
    folder = make_run(root / "run", study(seeds=(0, 1, 2, 3, 4), ratios=RATIOS), lambda step: True)
    events = one_trial_events(root / "one")
    trials = [step for step in read_manifest(folder) if step.step == "trial"]
    assert len(trials) == 500
    for step in trials:
        shutil.copy(events, folder.trial(step.id))
        link = folder.tb / step.label
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(folder.trial(step.id), link.parent))
    draw = np.random.default_rng(0)
    for what, model, task in itertools.product(PICTURES, ("L3", "L6"), ("movie", "tweets")):
        path = folder.report / "figures" / f"{what}-{model}-{task}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, draw.random((240, 320, 3)))
    write_study_view(folder)
    return folder


def one_trial_events(home: Path) -> Path:
    """The event file of a trial that wrote all its lines."""
    log = MetricsLog(home, [])
    for i in range(1, LOG_LINES + 1):
        numbers = {"loss": 0.7 / i, "learning_rate": 1e-5, "examples_per_s": 200.0}
        log.add({"step": 10 * i, "epoch": i / LOG_LINES, **numbers})
    log.add({"step": 10 * LOG_LINES, "eval": {"score": 0.8, "accuracy": 0.8, "loss": 0.5}})
    log.close()
    (events,) = home.glob("*tfevents*")
    return events


class Server:
    """A TensorBoard process; its port is its own choice."""

    def __init__(self, logdir: Path, log: Path) -> None:
        words = ["--logdir", str(logdir), "--port", "0", "--host", "127.0.0.1"]
        self.log = log
        self.started = time.monotonic()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tensorboard.main", *words, "--reload_interval", "2"],
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.address = self.wait(self._address)

    def _address(self) -> str | None:
        words = self.log.read_text(errors="replace").split()
        return next((word for word in words if word.startswith("http://127.0.0.1:")), None)

    def get(self, path: str, **query: str) -> Any:
        url = f"{self.address.rstrip('/')}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            content = answer.read()
        return json.loads(content) if answer.headers.get_content_subtype() == "json" else content

    def wait(self, condition: Any) -> Any:
        """What `condition` gives once it is something; fails when it never is."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            found = condition()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(self.log.read_text(errors="replace"))

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(folder.tb, tmp_path_factory.mktemp("log") / "tensorboard.log")
    try:
        yield server
    finally:
        server.stop()


def test_the_study_is_served_among_500_trials(folder: RunFolder, server: Server) -> None:
    study_runs = {"_study", "_study/dense", "_study/winning", "_study/random"}
    server.wait(lambda: study_runs <= set(server.get("data/runs")))
    print(f"\nthe study's runs are there after {server.seconds():.1f} s")
    server.wait(lambda: len(server.get("data/runs")) == 500 + len(study_runs))
    print(f"all runs are there after {server.seconds():.1f} s")

    began = time.monotonic()
    server.get("")
    server.get("data/environment")
    server.get("data/plugins_listing")
    runs = server.get("data/runs")
    tags = server.get("experiment/defaultExperimentId/data/plugin/timeseries/tags")
    print(f"first view of a server that has read all: {time.monotonic() - began:.2f} s")

    shown = tags["scalars"]["runTagInfo"]
    assert set(shown["_study/winning"]) >= {"tweets/L6", "intervals/tweets/L6/low"}
    assert sum("train/loss" in mine for mine in shown.values()) == 500
    assert {step.label for step in read_manifest(folder) if step.step == "trial"} < set(runs)

    points = server.get("data/plugin/scalars/scalars", run="_study/winning", tag="movie/L3")
    assert [step for _, step, _ in points] == sorted(step for _, step, _ in points)
    assert len(points) == len(RATIOS) - 1
    layout = server.get("data/plugin/custom_scalars/layout")
    assert [category["title"] for category in layout["category"]] == ["movie", "tweets"]
    images = server.get("data/plugin/images/tags")["_study"]
    assert "heads/heads-L3-tweets" in images
    listed = server.get(
        "data/plugin/images/images", run="_study", tag="heads/heads-L3-tweets", sample="0"
    )
    place = dict(urllib.parse.parse_qsl(listed[0]["query"]))
    picture = server.get("data/plugin/images/individualImage", **place)
    assert picture[:4] == b"\x89PNG"
    text = server.get("data/plugin/text/tags")["_study"]
    assert set(text) == {f"{name}/text_summary" for name in ("about", "states", "means")}
