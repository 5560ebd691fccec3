"""The verdicts say what the numbers and their intervals say, case by case."""

from typing import Any

import pytest

from pipelines.report.verdict import evaluation_verdict, search_verdict, sets_verdict, training_verdict

METRICS = ("psnr", "ssim", "consistency", "distance", "kid")


def gaps(*sides: int, than: str = "sr3") -> dict[str, Any]:
    """Another method minus SR3 in PSNR, SSIM, consistency, FID and KID: above 0, below it, or around it."""
    found = {
        name: {"mean": 2.0 * side, "low": 2.0 * side - 1, "high": 2.0 * side + 1}
        for name, side in zip(METRICS, sides, strict=True)
    }
    return {"than": than, **found}


def evaluation(num_images: int = 256, is_fid: bool = True, **differences: dict[str, Any]) -> dict[str, Any]:
    distance = {"is_fid": is_fid, "label": "FID (Inception)"}
    return {"num_images": num_images, "distance": distance, "differences": differences}


@pytest.mark.parametrize(
    ("sides", "sentence"),
    [
        ((1, 1, -1, 0, -1), "SR3 is behind bicubic on all four measures (PSNR, SSIM, consistency, KID)."),
        ((-1, -1, 1, 0, 1), "SR3 is ahead of bicubic on all four measures (PSNR, SSIM, consistency, KID)."),
        ((1, 0, 1, -1, 1), "SR3 is ahead of bicubic on consistency and KID and behind it on PSNR; SSIM does not"),
        ((1, 0, 0, -1, 0), "SR3 is behind bicubic on PSNR; SSIM, consistency and KID do not tell them apart."),
        ((0, 0, 0, 1, 0), "SR3 and bicubic cannot be told apart on PSNR, SSIM, consistency and KID: each difference's"),
    ],
)
def test_a_difference_counts_if_its_interval_excludes_0(sides: tuple[int, ...], sentence: str) -> None:
    found = evaluation_verdict(evaluation(bicubic=gaps(*sides)), {})
    assert len(found) == 1
    assert found[0].startswith(sentence)


def test_nearest_is_not_worth_a_sentence_and_the_baseline_has_a_name() -> None:
    against = gaps(1, 1, 0, 1, 1)
    content = evaluation() | {"differences": dict.fromkeys(("nearest", "bicubic", "16-64-regression"), against)}
    found = evaluation_verdict(content, {})
    assert [sentence.partition(" on ")[0] for sentence in found] == [
        "SR3 is ahead of bicubic",
        "SR3 is ahead of the regression baseline",
    ]


def test_folders_of_any_method_are_judged_by_name() -> None:
    found = evaluation_verdict(evaluation(gan=gaps(0, 0, 0, 0, 1, than="ours")), {})
    assert found == ["ours is ahead of gan on KID; PSNR, SSIM and consistency do not tell them apart."]


def test_few_images_are_not_judged_by_distances_between_sets() -> None:
    found = evaluation_verdict(evaluation(5, bicubic=gaps(1, 1, -1, 1, 1)), {})
    assert found[0] == "SR3 is behind bicubic on all three measures (PSNR, SSIM, consistency)."
    assert found[1].startswith("5 images are too few for distances between sets; even these")
    assert "even these" not in evaluation_verdict(evaluation(40, bicubic=gaps(1, 1, -1, 1, 1)), {})[1]
    assert len(evaluation_verdict(evaluation(64, bicubic=gaps(1, 1, -1, 1, 1)), {})) == 1


def test_without_the_reference_network_nothing_is_called_fid_or_kid() -> None:
    against = gaps(1, 1, -1, 1, 1)
    (found,) = evaluation_verdict(evaluation(is_fid=False, bicubic=against), {})
    assert "(PSNR, SSIM, consistency) " not in found
    assert found.endswith("ahead of bicubic on kernel distance and behind it on PSNR, SSIM and consistency.")
    del against["kid"]["low"]  # more images than inner products are held of
    (found,) = evaluation_verdict(evaluation(is_fid=False, bicubic=against), {})
    assert "ahead of bicubic on Fréchet distance" in found


def test_what_has_no_interval_has_no_verdict() -> None:
    without = {"than": "sr3", "psnr": {"mean": 3.0}}
    assert evaluation_verdict(evaluation(5, bicubic=without), {}) == []
    assert evaluation_verdict({"num_images": 5, "distance": {"is_fid": True}}, {}) == []


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([3.0, 2.0, 1.5, 1.2, 1.1, 1.0], "Held-out loss was still falling: longer training is likely to help."),
        ([3.0, 2.0, 1.0, 1.1, 1.2, 1.3], "Held-out loss was lowest at step 200 of 500 and has risen since"),
        ([3.0, 2.0, 1.0, 1.0, 0.999, 0.995], None),  # by less than is noticeable
        ([3.0], None),
        ([], None),
    ],
)
def test_a_loss_was_falling_or_rising_at_the_end(losses: list[float], sentence: str | None) -> None:
    found = training_verdict({"16-64": [(100 * index, loss) for index, loss in enumerate(losses)]})
    assert bool(found) == (sentence is not None)
    assert not found or found[0].startswith(str(sentence))


def test_stages_are_named_where_there_are_several() -> None:
    falling, flat = [(0, 2.0), (50, 1.5), (100, 1.0)], [(0, 1.0), (50, 1.0), (100, 1.0)]
    (found,) = training_verdict({"16-32": falling, "32-64": flat, "64-128": falling})
    assert found.startswith("Held-out loss was still falling in 16-32 and 64-128:")
    assert training_verdict({"16-32": flat, "32-64": flat}) == []
    found = evaluation_verdict(evaluation(bicubic=gaps(0, 0, 0, 0, 0)), {"16-32": falling})
    assert len(found) == 2


def search(published: str, confirmed: bool = True, kid: float = 0.0, **gain: float) -> dict[str, Any]:
    """A search whose best is `found`, with its gain on other images; judged by KID if that is given."""
    values = {"value": 17.0, "low": 5.0, "high": 29.0, **gain}
    gains = [{"name": "found", "default": "ddim", **values}] if gain or published == "found" else []
    return {
        "best": "found",
        "front": [],
        "published": [published],
        "trials": [{"name": "found", "status": "done", "objective": kid or 80.0, "kid": 0.125}],
        "num_images": 64,
        "split": "validation",
        "confirmation": {"num_images": 32, "split": "test", "gains": gains} if confirmed else None,
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            search("found"),
            "found is better than the best default ddim on 32 other images (test): by 17 [5, 29]. It is published.",
        ),
        (
            search("ddim", low=-2.0),
            "found is not surely better than the best default ddim on 32 other images (test): its gain is 17 [-2, 29]."
            " ddim is published instead.",
        ),
        (
            search("ddim", low=5.0),
            "found is better than the best default ddim on 32 other images (test) by FID, by 17 [5, 29], but worse by"
            " KID. ddim is published instead.",
        ),
        (
            search("ddim", kid=0.125, value=0.01, low=-0.02),
            "its gain is 0.01 [-0.02, 29] by KID. ddim is published instead.",
        ),
        (
            search("heun"),
            "The search found nothing better than its defaults. heun is published, the best of them on 32 other images",
        ),
        (
            search("found", confirmed=False),
            "found is best on the 64 validation images searched. No others confirm it: it may be chance. It is"
            " published all the same.",
        ),
    ],
)
def test_a_search_is_judged_where_it_did_not_look(content: dict[str, Any], sentence: str) -> None:
    assert sentence in search_verdict(content)


def test_what_is_published_of_a_front_is_that_of_its_best() -> None:
    front = search("found") | {"front": ["cheap", "found"], "published": ["default", "found"]}
    assert "It is published." in search_verdict(front)


def test_images_from_noise_have_a_distance_and_its_caution() -> None:
    numbers = {"mean": 312.4, "low": 300.0, "high": 325.0}
    few = {"num_images": 24, "distance": {"label": "FID"}, "methods": [{"name": "sr3", "distance": numbers}]}
    assert sets_verdict(few) == [
        "FID: 312.4 [300, 325].",
        "24 images are too few for this number to mean much: look at them.",
    ]
    assert len(sets_verdict({**few, "num_images": 50_000})) == 1
