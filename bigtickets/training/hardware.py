"""What the device can do and what it has used."""

import contextlib
import resource
import sys
from pathlib import Path

import torch

from bigtickets.study.spec import ExecutionSpec

# Dense bf16 FLOP/s with float32 accumulation, from the vendors' data sheets.
PEAK_BF16_FLOPS = {
    "V100": 125e12,
    "A100": 312e12,
    "A10": 125e12,
    "A40": 150e12,
    "L4": 121e12,
    "L40": 181e12,
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "B200": 2250e12,
}


def peak_flops(device: torch.device) -> float | None:
    """The device's peak in FLOP/s (bf16); None where it isn't known, as for CPUs."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((PEAK_BF16_FLOPS[word] for word in words if word in PEAK_BF16_FLOPS), None)


def use_threads(execution: ExecutionSpec) -> None:
    """Compute with the asked number of CPU threads; `auto` leaves what torch has chosen."""
    if execution.threads != "auto":
        torch.set_num_threads(execution.threads)


def tokens_per_pass(device: torch.device) -> int:
    """Padded tokens that go through a model at once where no gradient of weights is needed.

    A GPU wants to be filled; a CPU core is a third slower once activations leave its cache.
    """
    return 16384 if device.type == "cuda" else 2048


def free_memory(device: torch.device) -> int | None:
    """Bytes of the device that nobody uses, what torch keeps ready for itself among them; None on
    a CPU, whose memory others take and give back meanwhile."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def reset_peak_memory(device: torch.device) -> None:
    """Start counting `peak_memory_gb` anew: a worker runs many trials."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gb(device: torch.device) -> float:
    """Most memory in use since the reset: of the device, or of the process on a CPU; in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (30 if sys.platform == "darwin" else 20)
