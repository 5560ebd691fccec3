"""ImageNet's classes are the known ones, in the known order."""

import csv
from pathlib import Path

from pipelines.prepare.sources.imagenet_classes import CLASS_INDEX, SYNSET_OF_ILSVRC_ID

TENCH, SEA_SNAKE = "n01440764", "n01751748"


def test_imagenet_classes_are_the_known_ones() -> None:
    assert len(CLASS_INDEX) == len(set(SYNSET_OF_ILSVRC_ID.values())) == 1000
    assert (CLASS_INDEX[TENCH], CLASS_INDEX["n15075141"]) == (0, 999)
    assert SYNSET_OF_ILSVRC_ID[490] == SEA_SNAKE  # class of ILSVRC2012_val_00000001
    assert CLASS_INDEX[SEA_SNAKE] == 65


def test_imagenet_classes_agree_with_labelled_images(shared_data: Path) -> None:
    with open(shared_data / "natural_eval" / "labels.csv", encoding="utf-8", newline="") as file:
        rows = {row["wnid"]: int(row["imagenet_index"]) for row in csv.DictReader(file)}
    assert rows == CLASS_INDEX
