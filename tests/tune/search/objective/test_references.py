"""What outputs are compared with: other images than the inputs', others in the confirmation, extracted once."""

from typing import Any

import numpy as np
import pytest

from sr3core.errors import DataError
from sr3core.features.extractors import extract_features
from tests.tune.search.tiny_search import TinyRun, fake_load_split, make_config, make_images
from tune.search.objective.references import with_references
from tune.search.objective.task import load_task
from tune.search.settings import SearchConfig


def loaded(run: TinyRun, config: SearchConfig, confirm: bool = False) -> Any:
    return with_references(load_task(run.stage, config, confirm), run.stage, config, confirm)


def test_the_search_and_the_confirmation_are_judged_by_different_training_images(
    tiny_run: TinyRun, ray_session: None
) -> None:
    config = make_config(num_references=20)
    searched, confirmed = loaded(tiny_run, config), loaded(tiny_run, config, confirm=True)
    images = fake_load_split("", "", "train", 40).high
    features = extract_features(searched.feature_network, images)
    assert not searched.paired
    np.testing.assert_allclose(searched.references, features[0::2], rtol=1e-5)
    np.testing.assert_allclose(confirmed.references, features[1::2], rtol=1e-5)
    files = {path: path.stat().st_mtime_ns for path in (searched.cache / "references").iterdir()}
    loaded(tiny_run, config)
    assert files == {path: path.stat().st_mtime_ns for path in (searched.cache / "references").iterdir()}


def test_enough_images_are_compared_with_their_own_originals(
    tiny_run: TinyRun, ray_session: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tune.search.objective.yardstick.ENOUGH_FOR_FID", 16)
    task = loaded(tiny_run, make_config())
    assert task.paired
    assert task.estimates == ("fid",)
    np.testing.assert_allclose(
        task.references,
        extract_features(task.feature_network, fake_load_split("", "", "validation", 16).high),
        rtol=1e-5,
    )


def test_too_few_other_images_are_counted(tiny_run: TinyRun, monkeypatch: Any) -> None:
    monkeypatch.setattr("tune.search.objective.references.load_split", lambda *place, **part: make_images(3, 0))
    with pytest.raises(DataError, match=r"too few training images .* 3 of every second one, and 4 are needed"):
        loaded(tiny_run, make_config())
