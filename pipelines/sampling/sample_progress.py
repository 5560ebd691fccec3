"""Progress of `sr3 sample`."""

import time
from dataclasses import dataclass, field

from pipelines.runtime.progress_display import duration


@dataclass(slots=True)
class SampleProgress:
    """Progress of drawing images."""

    num_images: int
    """Images to draw in this run."""
    num_before: int
    """Images that an earlier run has drawn."""
    images_done: int = 0
    """Images drawn in this run."""
    started: float = field(default_factory=time.monotonic)
    """Monotonic time of the start."""

    @property
    def share(self) -> float:
        """Fraction of this run's images that are drawn."""
        return self.images_done / self.num_images

    def line(self) -> str:
        """The progress in one line."""
        earlier = f" (+{self.num_before} before)" if self.num_before else ""
        speed = self.images_done / max(time.monotonic() - self.started, 1e-9)
        left = duration((self.num_images - self.images_done) / speed) if speed else "?"
        return f"sample: {left} left, {self.images_done}/{self.num_images} images{earlier}, {speed:.2f} images/s"
