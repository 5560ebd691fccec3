"""FFHQ-style alignment of face photos from 68 landmarks, for photos from other sources (the extra "align").

The rectangle is that of Karras et al., "Progressive Growing of GANs", appendix C, by which CelebA-HQ and FFHQ were
cropped; the paper crops and aligns faces from other sources in the same way (section 4.1). Deviation from FFHQ: beyond
the photo's border the rectangle shows the mirrored photo, without FFHQ's added blur.
"""

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.images.rejects import DecodeError, RejectReason
from sr3core.errors import ConfigError
from sr3core.images.resize import resize_area

_MODEL = "models/shape_predictor_68_face_landmarks.dat"
_LEFT_EYE, _RIGHT_EYE, _MOUTH_CORNERS = slice(36, 42), slice(42, 48), (48, 54)
_DETECTION_SIDE = 1024  # photos are scaled to this side for face detection, at most doubled
_OVERSAMPLING = 2  # bicubic samples per output pixel and axis, before the exact area mean


@dataclass(frozen=True, slots=True)
class FaceRectangle:
    """An oriented square around a face, in the photo's pixels."""

    centre: np.ndarray
    """(x, y) of its centre."""
    half_width: np.ndarray
    """(x, y) from the centre to the middle of its right side."""

    @property
    def side(self) -> float:
        """Its side, pixels of the photo."""
        return 2 * float(np.hypot(*self.half_width))

    @property
    def corners(self) -> np.ndarray:
        """(4, 2): upper left, lower left, lower right, upper right, as seen by the upright face."""
        across, down = self.half_width, _rotate_90(self.half_width)
        return self.centre + np.stack([-across - down, -across + down, across + down, across - down])


def face_rectangle(landmarks: np.ndarray) -> FaceRectangle:
    """The rectangle of a face from its 68 landmarks, (68, 2) as (x, y): Karras et al., appendix C.

    x' = e1 - e0; y' = mean(e0, e1) - mean(m0, m1); c = mean(e0, e1) - 0.1 y'; s = max(4.0 |x'|, 3.6 |y'|);
    x = Normalize(x' - Rotate90(y')), where Rotate90 turns up to left.
    """
    points = landmarks.astype(np.float64)
    eye_0, eye_1 = points[_LEFT_EYE].mean(0), points[_RIGHT_EYE].mean(0)
    mouth = points[list(_MOUTH_CORNERS)].mean(0)
    eyes = (eye_0 + eye_1) / 2
    across, up = eye_1 - eye_0, eyes - mouth
    side = max(4.0 * np.hypot(*across), 3.6 * np.hypot(*up))
    direction = across - _rotate_90(-up)
    direction = direction / np.hypot(*direction)
    return FaceRectangle(eyes - 0.1 * up, direction * side / 2)


def align_face(pixels: np.ndarray, largest: int) -> np.ndarray:
    """Crop the largest face of a photo, upright: uint8 (S, S, 3), S being its size in the photo, at most `largest`.

    Raises:
        DecodeError: no face is found.
        ConfigError: the extra is not installed.
    """
    rectangle = face_rectangle(find_landmarks(pixels))
    return cut_out(pixels, rectangle, min(max(int(rectangle.side), 1), largest))


def cut_out(pixels: np.ndarray, rectangle: FaceRectangle, size: int) -> np.ndarray:
    """Resample a rectangle of a photo to (size, size, 3): fine bicubic samples, then their exact area mean."""
    fine = size * max(_OVERSAMPLING, int(np.ceil(rectangle.side / size)))
    margin = _margin(pixels.shape[:2], rectangle.corners)
    padded = np.pad(
        pixels, ((margin, margin), (margin, margin), (0, 0)), "reflect" if _fits(pixels, margin) else "edge"
    )
    quad = tuple(float(value) for value in (rectangle.corners + margin + 0.5).ravel())  # from pixel centres to edges
    image = Image.fromarray(padded).transform((fine, fine), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    return resize_area(np.asarray(image), size)


def find_landmarks(pixels: np.ndarray) -> np.ndarray:
    """The 68 landmarks of the largest face, (68, 2) as (x, y) in the photo's pixels.

    Raises:
        DecodeError: no face is found.
    """
    detector, predictor = _models()
    scale = min(_DETECTION_SIDE / max(pixels.shape[:2]), 2.0)
    height, width = (max(round(side * scale), 1) for side in pixels.shape[:2])
    small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    faces = detector(small, 0)
    if not faces:
        raise DecodeError(RejectReason.NO_FACE, "no face is found; use a frontal photo, or prepare without align_faces")
    shape = predictor(small, max(faces, key=lambda face: face.area()))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float64) / scale


def check_installed() -> None:
    """Check that the extra "align" is installed.

    Raises:
        ConfigError: it is not; says what to install.
    """
    missing = [name for name in ("dlib", "face_recognition_models") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"align_faces: {' and '.join(missing)} missing; pip install 'sr3-on-ray[align]'")


@lru_cache(maxsize=1)
def _models() -> tuple[Any, Any]:
    check_installed()
    import dlib  # type: ignore[import-not-found]

    # Only the package's data file is used: its module imports pkg_resources, which newer setuptools lack.
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(next(iter(spec.submodule_search_locations))) / _MODEL
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path))  # type: ignore[attr-defined]


def _rotate_90(vector: np.ndarray) -> np.ndarray:
    """A quarter turn clockwise as seen in an image, whose y points down: right becomes down."""
    return np.array([-vector[1], vector[0]])


def _margin(shape: tuple[int, ...], corners: np.ndarray) -> int:
    """Padding that the photo needs so that all corners lie in it, in pixels."""
    beyond = max(-corners.min(), (corners - [shape[1] - 1, shape[0] - 1]).max(), 0.0)
    return int(np.ceil(beyond)) + 2 if beyond > 0 else 0


def _fits(pixels: np.ndarray, margin: int) -> bool:
    return margin < min(pixels.shape[:2])
