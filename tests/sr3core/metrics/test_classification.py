"""Table 3's chain against Pillow, and top-k errors against torchmetrics and by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import multiclass_accuracy

from sr3core.errors import DataError
from sr3core.metrics.classification import table_3_input, table_3_reference, top_k_errors


@pytest.mark.parametrize("k", [1, 5])
def test_errors_are_one_minus_torchmetrics_accuracy(k: int) -> None:
    generator = np.random.default_rng(k)
    logits, labels = generator.standard_normal((200, 12)), generator.integers(0, 12, 200)
    accuracy = multiclass_accuracy(torch.tensor(logits), torch.tensor(labels), num_classes=12, top_k=k, average="micro")
    assert top_k_errors(logits, labels, k).mean() == pytest.approx(1 - float(accuracy), abs=1e-6)


def test_errors_are_per_image_and_ties_earn_nothing() -> None:
    logits = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    labels = np.array([0, 1, 2])
    assert top_k_errors(logits, labels, 1).tolist() == [False, True, True]
    assert top_k_errors(logits, labels, 2).tolist() == [False, False, True]
    assert not top_k_errors(logits, labels, 3).any()


def test_the_chain_is_pillows(photos) -> None:
    photo = Image.open(sorted(photos.glob("*.jpg"))[0]).convert("RGB").resize((500, 375))
    wide = np.asarray(photo)
    reference = table_3_reference(wide)
    square = photo.crop((62, 0, 437, 375)).resize((256, 256), Image.Resampling.BICUBIC)
    expected = square.crop((16, 16, 240, 240))
    assert np.abs(reference.astype(int) - np.asarray(expected)).max() <= 1
    low = expected.resize((56, 56), Image.Resampling.BICUBIC).resize((64, 64), Image.Resampling.BICUBIC)
    made = table_3_input(np.asarray(expected)[None])
    assert made.shape == (1, 64, 64, 3)
    assert np.abs(made[0].astype(int) - np.asarray(low)).max() <= 2


def test_unfit_input_is_refused() -> None:
    with pytest.raises(DataError, match="must be 224x224, got 64x64"):
        table_3_input(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(DataError, match="label 3 is out of range for a classifier of 3"):
        top_k_errors(np.zeros((2, 3)), np.array([0, 3]), 1)
    with pytest.raises(DataError, match="2 images need as many labels"):
        top_k_errors(np.zeros((2, 3)), np.array([0]), 1)
