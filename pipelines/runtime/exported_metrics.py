"""Numbers for Prometheus, through Ray's own export: each of Ray's processes hands them to its node's agent.

A number that is no longer set stays at its last value until its process ends. Without Ray nothing is exported.
"""

from collections.abc import Mapping

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


class Exporter:
    """Sets gauges under the same tags."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        """Nothing is exported before the first `set`.

        Args:
            tags: on every number, such as run and stage.
        """
        self._tags = dict(tags)
        self._gauges: dict[str, object] = {}

    def set(self, **values: float) -> None:
        """Set numbers by their names in METRICS, without `sr3_`.

        Raises:
            KeyError: METRICS has no such name.
        """
        import ray

        if not ray.is_initialized():
            return
        for name, value in values.items():
            self._gauge(f"sr3_{name}").set(float(value), tags=self._tags)  # type: ignore[attr-defined]

    def _gauge(self, name: str) -> object:
        if name not in self._gauges:
            from ray.util.metrics import Gauge

            self._gauges[name] = Gauge(name, description=METRICS[name], tag_keys=tuple(self._tags))
        return self._gauges[name]
