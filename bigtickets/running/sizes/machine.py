"""What this machine has, found without starting CUDA."""

import subprocess

import psutil

from bigtickets.errors import InputError
from bigtickets.running.groups.launching import visible_devices
from bigtickets.running.sizes.memory import GIB
from bigtickets.running.sizes.sizing import Machine


def this_machine() -> Machine:
    """This machine's GPUs, the smallest deciding, or its memory where it has none."""
    gpus = len(visible_devices())
    if not gpus:
        return Machine(psutil.virtual_memory().total / GIB, 0)
    return Machine(_gpu_memory_gb(), gpus)


def _gpu_memory_gb() -> float:
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
        return min(float(line) for line in found.stdout.split()) / 1024
    except (OSError, ValueError, subprocess.SubprocessError):
        raise InputError(
            "nvidia-smi does not say how much memory the GPUs have; say it by --gpu-memory to "
            "plan, or give execution.zero and execution.processes_per_trial to run"
        ) from None
