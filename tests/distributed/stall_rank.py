"""A rank of a group in which the second one lives on and does not get on."""

import sys
import time
from pathlib import Path

from bigtickets.training.ranks import process_group
from bigtickets.training.watch import last_words, paced


def main(folder: Path) -> None:
    with process_group() as ranks:
        own = folder / str(ranks.rank)
        with last_words(lambda text: own.write_text(text) and None), paced() as alive:
            for step in range(3):
                alive()
                ranks.barrier()
                if ranks.rank == 1 and step == 1:
                    time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
