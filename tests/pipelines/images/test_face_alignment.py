"""FFHQ-style alignment: the rectangle against hand-made landmarks, the cut against known pixels, and real faces."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.images.decoding import decode_image
from pipelines.images.face_alignment import FaceRectangle, align_face, cut_out, face_rectangle, find_landmarks
from pipelines.images.rejects import DecodeError, RejectReason


def landmarks(eye_0: tuple, eye_1: tuple, mouth_0: tuple, mouth_1: tuple) -> np.ndarray:
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = eye_0, eye_1
    points[48], points[54] = mouth_0, mouth_1
    return points


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return points @ matrix


def test_rectangle_of_an_upright_face() -> None:
    face = face_rectangle(landmarks((40, 50), (60, 50), (42, 80), (58, 80)))
    assert face.side == pytest.approx(max(4.0 * 20, 3.6 * 30))
    np.testing.assert_allclose(face.centre, [50, 53])
    np.testing.assert_allclose(face.corners, [[-4, -1], [-4, 107], [104, 107], [104, -1]])


@pytest.mark.parametrize("degrees", [-170, -90, -30, 10, 45, 120])
def test_rectangle_turns_with_the_face(degrees: float) -> None:
    points = landmarks((40, 50), (60, 52), (42, 80), (58, 83))
    upright, turned = face_rectangle(points), face_rectangle(rotated(points, degrees))
    assert turned.side == pytest.approx(upright.side)
    np.testing.assert_allclose(turned.corners, rotated(upright.corners, degrees), atol=1e-9)


def smooth(side: int) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    return (np.stack([x, y, (x + y) / 2], axis=-1) * 255).astype(np.uint8)


def test_a_straight_rectangle_is_a_crop() -> None:
    pixels = smooth(200)
    face = FaceRectangle(centre=np.array([99.5, 89.5]), half_width=np.array([40.0, 0.0]))
    assert np.abs(cut_out(pixels, face, 80).astype(int) - pixels[50:130, 60:140]).max() <= 2


def test_a_turned_rectangle_is_turned_back() -> None:
    pixels = smooth(200)
    face = FaceRectangle(centre=np.array([99.5, 99.5]), half_width=np.array([0.0, 40.0]))  # right is down
    assert np.abs(cut_out(pixels, face, 80).astype(int) - np.rot90(pixels[60:140, 60:140])).max() <= 2


def test_beyond_the_border_the_photo_is_mirrored() -> None:
    face = FaceRectangle(centre=np.array([5.0, 5.0]), half_width=np.array([40.0, 0.0]))
    out = cut_out(smooth(100), face, 64)
    assert out.shape == (64, 64, 3)
    assert out.std() > 1


def test_real_faces_come_out_aligned(shared_data: Path) -> None:
    paths = sorted((shared_data / "faces_eval" / "senate1024").glob("*.jpg"))[:3]
    assert paths
    for path in paths:
        aligned = decode_image(path.read_bytes()).pixels  # aligned by somebody else already
        photo = np.full((1400, 1500, 3), 128, np.uint8)
        photo[150:1174, 200:1224] = aligned
        buffer = io.BytesIO()
        Image.fromarray(photo).rotate(20, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)).save(buffer, "PNG")
        again = align_face(decode_image(buffer.getvalue()).pixels, 512)
        assert again.shape == (512, 512, 3)
        shift = find_landmarks(again) - find_landmarks(aligned) / 2
        assert np.abs(shift).mean() < 512 * 0.02, f"{path.name}: {np.abs(shift).mean():.1f} pixels off"


def test_no_face_is_a_reject() -> None:
    with pytest.raises(DecodeError) as caught:
        align_face(smooth(128), 64)
    assert caught.value.reason == RejectReason.NO_FACE
