"""A process of its own that searches, for the test that kills it: RUN ADDRESS -> lines of progress."""

import importlib.util
import sys
from pathlib import Path

import ray

from tune import search as module
from tune import task
from tune.config import SearchConfig


def config(**changes: object) -> SearchConfig:
    """The search that the killed process and the one after it run."""
    values = {
        "stage": "4-16",
        "num_steps": 4,
        "num_trials": 10,
        "num_images": 16,
        "features": "seeded",
        **changes,
    }
    return SearchConfig(**values)  # type: ignore[arg-type]


def main(run: str, address: str) -> None:
    """Search on a running cluster."""
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("conftest.py"))
    assert spec
    assert spec.loader
    tiny = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = tiny
    spec.loader.exec_module(tiny)
    task.load_split = tiny.fake_load_split
    ray.init(address=address, log_to_driver=False, logging_level="WARNING")
    module.search(run, config(num_concurrent=1), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
