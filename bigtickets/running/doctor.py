"""`doctor`: is this machine ready to run a study?"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from bigtickets.errors import BigticketsError
from bigtickets.study.provenance import versions

CHECK = """
import torch
from bigtickets.training.ranks import process_group
with process_group() as ranks:
    ones = torch.ones(1, device=ranks.device)
    ranks.sum_(ones)
    assert int(ones) == ranks.world_size == 2
"""


def doctor() -> None:
    """Print one line per check; BigticketsError if one fails."""
    failed = 0
    for name, check in _checks():
        try:
            print(f"ok      {name}: {check()}")
        except Exception as error:
            failed += 1
            print(f"FAILED  {name}: {error}")
    if failed:
        raise BigticketsError(f"{failed} checks failed")


def _checks() -> Iterator[tuple[str, Callable[[], str]]]:
    yield "versions", _versions
    yield "devices", _devices
    yield "engine", _engine
    yield "two ranks", _two_ranks
    yield "model hub", _hub
    yield "disk", _disk


def _versions() -> str:
    found = versions()
    missing = [name for name, version in found.items() if version == "missing"]
    if missing:
        raise BigticketsError(f"not installed: {', '.join(missing)}; pip install {missing[0]}")
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _devices() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names)
    return f"no GPU; {os.cpu_count()} CPU cores"


def _engine() -> str:
    from bigtickets.training.settings import ds_configs

    files = sorted(path.name for path in ds_configs().glob("*.json"))
    if not files:
        raise BigticketsError(f"no settings in {ds_configs()}; install bigtickets again")
    return f"deepspeed with {', '.join(files)}"


def _two_ranks() -> str:
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "check.py")
        with open(script, "w") as file:
            file.write(CHECK)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        result = subprocess.run(
            [*command, "--nproc_per_node", "2", script],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
    if result.returncode:
        raise BigticketsError(f"torchrun of two processes: {result.stderr[-300:]}")
    return "a torchrun group adds up"


def _hub() -> str:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info("google-bert/bert-base-uncased", timeout=5)
    except Exception:  # of whatever HTTP client the hub's library uses this year
        return "not reached: give models as local directories and data as files"
    return "reached"


def _disk() -> str:
    return f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free here"
