"""A separate process that searches, for the test that kills it: RUN ADDRESS -> lines of progress."""

import logging
import sys

import ray

from pipelines.shards.manifest import MADE_BY
from tests.tune.search.tiny_search import fake_load_split, make_config
from tune.search import schedule_search as module
from tune.search.objective import held_out_images, references, task


def main(run: str, address: str) -> None:
    """Search on a running cluster."""
    task.load_split = references.load_split = fake_load_split
    task.operator_of = lambda data, stage: MADE_BY
    held_out_images.num_held_out = lambda stage, split: 80
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    module.search(run, make_config(), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
