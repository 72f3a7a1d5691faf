"""Trains the first dense model of each run folder, one after the other, as one rank of a group."""

import sys
from pathlib import Path

import torch

from bigtickets.running.signals import Stop
from bigtickets.running.single import Wanted, choose, with_needs
from bigtickets.running.worker import make_context, work
from bigtickets.study.folder import RunFolder
from bigtickets.training.hardware import use_threads
from bigtickets.training.ranks import process_group


def main(folders: list[str]) -> None:
    """One process group for all folders: a worker stays warm over many trials too."""
    with process_group() as ranks:
        for folder in folders:
            context = make_context(RunFolder(Path(folder)), ranks, Stop())
            target = choose(context.study, "trial", Wanted())
            torch.set_num_threads(1)
            use_threads(context.model(target).execution)
            work(context, with_needs(context.steps, target.id))


if __name__ == "__main__":
    main(sys.argv[1:])
