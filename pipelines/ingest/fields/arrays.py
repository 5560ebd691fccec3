"""A record of fields as the network takes it: standardised arrays, and the weight of each value in the loss."""

from dataclasses import dataclass

import numpy as np

from pipelines.ingest.augmentation import Variation
from pipelines.shards.fields import FieldRecord
from sr3core.samples.spec import SampleSpec
from sr3core.samples.transforms import low_to_model, to_model


@dataclass(frozen=True, slots=True)
class FieldArrays:
    """One sample; all arrays are float32."""

    high: np.ndarray
    """Target, (C, H, W); 0 where it is not known."""
    low: np.ndarray
    """Input, the channels of the target first, (C + C', h, w)."""
    static: np.ndarray | None
    """Static maps, (K, H, W)."""
    weights: np.ndarray | None
    """1 / the share of the training values that is known, and 0 where a value is not known, (C, H, W). The constant
    keeps the loss of all samples together where it is without missing values, and blows up no sparse sample."""

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The arrays that there are, by name."""
        found = {name: getattr(self, name) for name in ("high", "low", "static", "weights")}
        return {name: array for name, array in found.items() if array is not None}


def arrays_of(record: FieldRecord, spec: SampleSpec) -> FieldArrays:
    """Convert a record to what the network sees."""
    valid = record.valid if spec.has_mask else None
    known = None if valid is None else np.broadcast_to(valid, record.high.shape)
    return FieldArrays(
        high=to_model(record.high, spec.high, known),
        low=low_to_model(record.low, spec),
        static=None if record.static is None else to_model(record.static, spec.static),
        weights=None if known is None else known.astype(np.float32) / np.float32(spec.valid_share),
    )


def varied(array: np.ndarray, variation: Variation) -> np.ndarray:
    """Flip and turn one of a sample's arrays, (C, H, W)."""
    return np.rot90(array[..., ::-1] if variation.flip else array, variation.turns, (-2, -1))
