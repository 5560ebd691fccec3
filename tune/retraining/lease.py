"""One retraining at a time for a registry, by a lease in REGISTRY/lease, which is taken before Ray is even imported."""

import contextlib
import os
from collections.abc import Iterator

from pipelines.registry.registry import Registry
from pipelines.runs.run_folder import local_path
from pipelines.storage.leases.lease import Lease, hold, remove_empty
from pipelines.storage.uris import absolute, is_remote
from pipelines.storage.writable import nearest_that_exists
from tune.retraining.settings import RetrainConfig


@contextlib.contextmanager
def retraining_lease(config: RetrainConfig, wait: bool = False) -> Iterator[Lease]:
    """Hold the exclusive right to retrain for a registry for the duration of a block; to be taken before Ray starts.

    Args:
        config: the chain.
        wait: if another retraining is at work, wait until it has ended.

    Raises:
        StorageError: another retraining holds the lease, which the message names.
    """
    lease, purpose = Registry(absolute(config.registry)).lease, f"retraining in {local_path(config.work)}"
    with contextlib.ExitStack() as stack:
        if not is_remote(lease):
            registry = os.path.dirname(lease)
            stack.callback(remove_empty, lease, nearest_that_exists(registry))
        yield stack.enter_context(hold(lease, purpose, config.lease_seconds, "wait" if wait else "refuse"))
