"""numpy's files: one array, or several by name."""

from zipfile import BadZipFile

import numpy as np

from pipelines.stores.names import damaged
from pipelines.stores.store import Store, Variable
from sr3core.errors import DataError


class NumpyStore(Store):
    """A .npy of (N, H, W) or (N, C, H, W), whose channels are c0, c1, ...; or a .npz of (N, H, W) and (H, W) by name.

    Raises:
        DataError: it does not exist, is damaged, or holds other shapes.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._arrays = _read(location)
        series = {len(array) for array in self._arrays.values() if array.ndim == 3}
        if len(series) > 1:
            raise DataError(f"{location} holds {sorted(series)} samples of different variables; they must be as many")
        self.names = tuple(f"{number:06d}" for number in range(series.pop() if series else 0))
        self.chunk = 16
        self.variables = {
            name: Variable(name, "", (array.shape[-2], array.shape[-1]), array.ndim == 2, array.dtype)
            for name, array in self._arrays.items()
        }

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """See Store.read."""
        array = self._arrays[name]
        return np.asarray(array[None] if array.ndim == 2 else array[start:stop])


def _read(location: str) -> dict[str, np.ndarray]:
    try:
        found = np.load(location, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return _channels(location, found)
        arrays = {name: found[name] for name in found.files}
    except FileNotFoundError as error:
        raise DataError(f"{location} does not exist") from error
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise damaged(location, error) from error
    for name, array in arrays.items():
        if array.ndim not in (2, 3):
            raise DataError(f"{location}: {name} is of shape {array.shape}; samples need (N, H, W), static maps (H, W)")
    return arrays


def _channels(location: str, array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim not in (3, 4):
        raise DataError(f"{location} is of shape {array.shape}; samples need (N, H, W) or (N, channels, H, W)")
    if array.ndim == 3:
        return {"c0": array}
    return {f"c{number}": array[:, number] for number in range(array.shape[1])}
