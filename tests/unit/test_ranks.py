"""A rank's place, its exit code, and the end of one whose neighbour is lost."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_study import HANG_S

from bigtickets.environment import Place, place, speaks
from bigtickets.errors import InputError, Interrupted
from bigtickets.running.groups.exit_codes import CODES, codes_left, run_rank
from bigtickets.training import ranks, watch

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", CODES)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_process_alone_is_a_group_of_one(environment: pytest.MonkeyPatch) -> None:
    assert place() == Place(0, 1, 0)
    assert speaks()


def test_a_place_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    for name, value in zip(NAMES, ("5", "8", "1", "alpha", "29500"), strict=False):
        environment.setenv(name, value)
    assert place() == Place(5, 8, 1)
    assert not speaks()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"RANK": "1"}, "WORLD_SIZE: not in the environment"),
        ({"WORLD_SIZE": "2"}, "RANK and MASTER_ADDR and MASTER_PORT: not"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT: not"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK: 1, but WORLD_SIZE is 1"),
        ({"RANK": "-1", "WORLD_SIZE": "1"}, "RANK: '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "many"}, "WORLD_SIZE: 'many'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: '0'"),
    ],
)
def test_a_half_set_environment_is_an_error(
    given: dict[str, str], said: str, environment: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    with pytest.raises(InputError, match=said):
        place()
    assert speaks(), "an error that no rank says"


@pytest.mark.parametrize("value", ["0", "-3", "nan", "soon"])
def test_a_timeout_that_is_none_is_an_error(value: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(ranks.TIMEOUT, value)
    with pytest.raises(InputError, match=ranks.TIMEOUT):
        ranks.timeout()


def test_timeouts_have_defaults_and_can_be_set(environment: pytest.MonkeyPatch) -> None:
    assert ranks.timeout().total_seconds() == 7200
    assert (watch.silence_s(), watch.stall_s()) == (120, 1800)
    environment.setenv(ranks.TIMEOUT, "90")
    environment.setenv(watch.SILENCE, "0")
    assert ranks.timeout().total_seconds() == 90
    assert watch.silence_s() == 0
    environment.setenv(watch.SILENCE, "-1")
    with pytest.raises(InputError, match=watch.SILENCE):
        watch.silence_s()


def test_a_group_of_one_raises_its_own_errors() -> None:
    with ranks.process_group() as group:
        assert group.each(lambda: 3) == 3
        assert group.at_first(lambda: {"a": [1]}) == {"a": [1]}
        with pytest.raises(Interrupted, match="now"):
            group.each(lambda: stop())


def stop() -> None:
    raise Interrupted("now")


def test_codes_reach_the_launcher(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv(CODES, str(tmp_path))
    environment.setattr(sys, "argv", ["step.py", "--local_rank=1", "score", "STUDY.yaml"])
    heard: list[list[str]] = []
    for rank, code in (("1", 75), ("10", 0), ("0", 2)):
        environment.setenv("LOCAL_RANK", rank)
        assert run_rank(lambda words, code=code: heard.append(words) or code) == 0
    assert codes_left(tmp_path) == [2, 75, 0]
    assert heard[0] == ["score", "STUDY.yaml"]
    environment.setenv("LOCAL_RANK", "10")
    with pytest.raises(ZeroDivisionError):
        run_rank(lambda words: 1 // 0)
    assert codes_left(tmp_path) == [2, 75], "the code of an earlier life"
    assert run_rank(lambda words: sys.exit(2)) == 0
    assert codes_left(tmp_path) == [2, 75, 2]


def test_a_code_that_goes_while_it_is_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "0").symlink_to("of an earlier life")  # listed, and not there
    (tmp_path / "1").write_text("75")
    assert codes_left(tmp_path) == [75]


def test_without_a_launcher_the_code_is_the_process_s(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(sys, "argv", ["step.py"])
    assert run_rank(lambda words: 75) == 75


LONELY = """
import datetime, time
from torch.distributed import HashStore
from bigtickets.training import watch
watch.GRACE_S = 0.1
store = HashStore()
store.set_timeout(datetime.timedelta(seconds=0.05))
store.set("failed", "")
{said}
lonely = watch.Watch(store, 1, 3, 1.0, 0)
lonely.start()
time.sleep({sleep})
lonely.leave("")  # a thread that is inside the store when the process ends aborts it
"""


SPEECHLESS = "watch.FAREWELL_S = 0.5; watch._Process.last_words"


@pytest.mark.parametrize(
    ("said", "sleep", "code", "text"),
    [
        ("", 60, 1, "rank 2 has given no sign of life for 1 s"),
        (f"{SPEECHLESS} = lambda text: time.sleep(600)", 60, 1, "rank 2 has given no sign"),
        (f"{SPEECHLESS} = lambda text: 1 // 0", 60, 1, "rank 2 has given no sign"),
        ("store.set('2', 'left')", 3, 0, ""),
        ("store.set('2', 'left'); store.set('failed', 'rank 0 failed')", 60, 1, "rank 0 failed"),
    ],
)
def test_a_rank_ends_when_another_is_lost(said: str, sleep: int, code: int, text: str) -> None:
    program = LONELY.format(said=said, sleep=sleep)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == code, result.stderr
    assert text in result.stderr
    assert ("time.sleep" in result.stderr or 'File "<string>", line' in result.stderr) == bool(code)
