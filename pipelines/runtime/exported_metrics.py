"""Numbers for Prometheus, through Ray's own export: each of Ray's processes hands them to its node's agent.

Ray exports a gauge in the interval in which it was set, and forgets it two intervals later. A number that is set less
often, such as the time of a checkpoint, would have gaps, in which no alert can hold; so a thread sets each again until
its exporter is gone. Without Ray nothing is exported.
"""

import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping

PREPARATION = {
    "sr3_prepare_images": "Images that this run of a preparation has read.",
    "sr3_prepare_images_planned": "Images that this run has to read.",
    "sr3_prepare_rejects": "Images that one stage or more rejected.",
    "sr3_prepare_images_per_second": "Images read per second since the start.",
}
TRAINING = {
    "sr3_train_start_time_seconds": "Unix time at which this worker began to train.",
    "sr3_train_step": "Steps done, told every few seconds.",
    "sr3_train_num_steps": "Steps of the whole training.",
    "sr3_train_checkpoint_time_seconds": "Unix time of the newest checkpoint, or of the start.",
    "sr3_train_loss": "Training loss, mean of the last interval over all workers.",
    "sr3_train_gradient_norm": "Norm of the gradient, mean of the last interval.",
    "sr3_train_images_per_second": "Images per second of all workers together.",
    "sr3_train_mfu_ratio": "Model FLOP utilisation, of what the GPUs could do at most.",
    "sr3_train_step_seconds": "Seconds a step, the same on all workers, since they wait for the slowest.",
    "sr3_train_own_step_seconds": "Seconds of a step that are this worker's own: data wait and forward pass.",
    "sr3_train_data_wait_ratio": "Share of the time that this worker waited for data.",
    "sr3_train_memory_bytes": "Peak memory of this worker: allocated on its GPU, else of its process.",
}
METRICS = {**PREPARATION, **TRAINING}
"""Name -> what it says. Ray puts `ray_` before each name."""


SET_AGAIN_SECONDS = max(float(os.environ.get("RAY_metrics_report_interval_ms", 10_000)), 1_000) / 2_000  # noqa: SIM112
"""Half of Ray's interval between two exports."""


class Exporter:
    """Sets gauges under the same tags; they are exported until it is deleted, or its process ends."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        """Nothing is exported before the first `set`.

        Args:
            tags: on every number, such as run and stage.
        """
        self._tags = dict(tags)
        self._gauges: dict[str, object] = {}
        self._values: dict[str, float] = {}

    def set(self, **values: float) -> None:
        """Set numbers by their names in METRICS, without `sr3_`.

        Raises:
            KeyError: METRICS has no such name.
        """
        with _lock:
            self._values |= {f"sr3_{name}": float(value) for name, value in values.items()}
            self._record(f"sr3_{name}" for name in values)
            _set_again_from_now_on(self)

    def set_again(self) -> None:
        """Set every number to its last value."""
        with _lock:
            self._record(self._values)

    def _record(self, names: Iterable[str]) -> None:
        import ray

        if ray.is_initialized():
            for name in names:
                self._gauge(name).set(self._values[name], tags=self._tags)  # type: ignore[attr-defined]

    def _gauge(self, name: str) -> object:
        if name not in self._gauges:
            from ray.util.metrics import Gauge

            self._gauges[name] = Gauge(name, description=METRICS[name], tag_keys=tuple(self._tags))
        return self._gauges[name]


_lock = threading.RLock()
_exporters: "weakref.WeakSet[Exporter]" = weakref.WeakSet()
_threads: list[threading.Thread] = []


def _set_again_from_now_on(exporter: Exporter) -> None:
    _exporters.add(exporter)
    if not _threads:
        _threads.append(threading.Thread(target=_set_all_again, name="exported-metrics", daemon=True))
        _threads[0].start()


def _set_all_again() -> None:
    while True:
        time.sleep(SET_AGAIN_SECONDS)
        _set_each_again()


def _set_each_again() -> None:
    with _lock:
        exporters = list(_exporters)
    for exporter in exporters:
        exporter.set_again()
