"""Scripts of this folder as groups of ranks, and engine settings for models as small as theirs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from small_study import HANG_S

HERE = Path(__file__).parent
SETTINGS = HERE.parents[1] / "ds_configs"


def launch(
    script: str,
    ranks: int,
    *words: object,
    code: int = 0,
    cwd: Path | None = None,
    **environment: str,
) -> str:
    """What a script says on stderr that is to end with `code` on so many ranks, a thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(ranks), str(HERE / script), *map(str, words)]
    own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stderr


def engine_file(folder: Path, name: str, **numbers: int) -> Path:
    """The settings `name` with other numbers for ZeRO."""
    config = json.loads((SETTINGS / f"{name}.json").read_text())
    assert config["zero_optimization"].keys() >= numbers.keys()
    config["zero_optimization"] |= numbers
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


def sharing_all(folder: Path) -> list[Path]:
    """ZeRO 3, and with offload, that shares out small weights too and updates few at a time."""
    numbers = {"stage3_param_persistence_threshold": 0, "sub_group_size": 1000}
    return [engine_file(folder, name, **numbers) for name in ("zero3", "zero3_offload")]
