"""The cluster file: what it may say, and how it is refused."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigtickets.errors import InputError
from bigtickets.running.slurm.cluster import Cluster, limit_s, read_cluster

EXAMPLE = Path(__file__).parents[2] / "slurm" / "clusters" / "example.yaml"


def write(folder: Path, **keys: object) -> Path:
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump({"time": "1:00:00", **keys}))
    return path


def test_the_example_is_valid_and_documents_every_key() -> None:
    cluster = read_cluster(EXAMPLE)
    assert cluster.seconds == 4 * 3600
    assert cluster.extra == (("nice", "100"), ("switches", "1"))
    keys = set(yaml.safe_load(EXAMPLE.read_text()))
    assert keys == {field.name for field in dataclasses.fields(Cluster)}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4:00:00", 14400),
        ("100:00:01", 360001),
        ("2-00:00:00", 172800),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("90", None),
        ("4:00", None),
        ("4h", None),
        ("1-", None),
        ("0:00:00", 0),
    ],
)
def test_time_limits(text: str, seconds: int | None) -> None:
    assert limit_s(text) == seconds


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"partitoin": "gpu"}, ["partitoin", "did you mean 'partition'"]),
        ({"time": 14400}, ["time: 14400", "in quotes"]),
        ({"time": "0:00:00"}, ["time: '0:00:00'"]),
        ({"partition": "gpu; rm -rf /"}, ["partition: 'gpu; rm -rf /'"]),
        ({"partition": "gpu\n"}, ["partition: "]),
        ({"account": "$(id)"}, ["account: '$(id)'"]),
        ({"qos": "--wrap=id"}, ["qos"]),
        ({"constraint": "a b"}, ["constraint"]),
        ({"gres": "gpu:8:8"}, ["gres"]),
        ({"gres": "gpu"}, ["gpus_per_node: missing"]),
        ({"cpus": 0}, ["cpus: 0", "1 or more"]),
        ({"cpus": "many"}, ["cpus: expected a number"]),
        ({"memory_gb": -1}, ["memory_gb"]),
        ({"save_seconds": 3000}, ["save_seconds", "half of the time"]),
        ({"prefetch": "jobs"}, ["prefetch", "did you mean 'job'"]),
        ({"setup": "module load x"}, ["setup: expected a list"]),
        ({"setup": ["a\nb"]}, ["setup[0]", "one line each"]),
        ({"container": ["apptainer", "a\nb"]}, ["container[1]"]),
        ({"python": "python3"}, ["python", "absolute path"]),
        ({"scratch": "tmp"}, ["scratch"]),
        ({"scratch": "$(id)"}, ["scratch"]),
        ({"mail_user": "a b"}, ["mail_user"]),
        ({"extra": {"wrap": "id"}}, ["extra.wrap", "bigtickets sets it itself"]),
        ({"extra": {"partition": "gpu"}}, ["extra.partition", "key of its own"]),
        ({"extra": {"mail-user": "me"}}, ["extra.mail-user", "key of its own"]),
        ({"extra": {"-x": 1}}, ["extra.-x"]),
        ({"extra": {"nice": "1\n2"}}, ["extra.nice"]),
        ({"extra": {"nice": False}}, ["extra.nice"]),
        ({"extra": [1]}, ["extra: expected options"]),
    ],
)
def test_what_is_refused_names_file_and_key(
    tmp_path: Path, keys: dict[str, object], words: list[str]
) -> None:
    path = write(tmp_path, **keys)
    with pytest.raises(InputError) as caught:
        read_cluster(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_file_without_a_time_limit(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("partition: gpu\n")
    with pytest.raises(InputError, match="time: missing"):
        read_cluster(path)


NAMES = [f.name for f in dataclasses.fields(Cluster)]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(allow_nan=True),
    st.text(max_size=12),
    st.lists(st.text(max_size=6), max_size=3),
    st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_any_value_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, object]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), **keys)
    try:
        cluster = read_cluster(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    for value in vars(cluster).values():
        words = value if isinstance(value, tuple) else (value,)
        assert not any(isinstance(w, str) and ("\n" in w or "\0" in w) for w in words)
