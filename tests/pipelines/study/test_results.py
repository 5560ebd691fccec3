"""Results: known answers give known rates, declared exclusions and no others, figures and raw trials."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from matplotlib.figure import Figure
from PIL import Image

from pipelines.study.config import Exclusions
from pipelines.study.database import open_database, participants
from pipelines.study.design import Kind, Slot, Trial
from pipelines.study.exclusions import Answered, subject_exclusion, trial_exclusion
from pipelines.study.figures import draw_rates
from pipelines.study.results import tabulate, write_results
from pipelines.study.study_folder import Study
from pipelines.study.tokens import Tokens
from pipelines.study.visits import Response, Visits
from sr3core.errors import ConfigError, DataError
from tests.study_subjects import make_study

Fooled = Callable[[Slot, Trial, int], bool]
"""Whether a subject (their slot, a trial, the subject's number) prefers what is not the original."""


def take(study: Study, fooled: Fooled, people: int | None = None, seconds: float | None = None) -> None:
    """Fill a study's database with subjects who make these decisions; time passes as they look."""
    now = [1_000_000.0]
    database = open_database(None, study.sqlite_path, study.fingerprint)
    visits = Visits(study, database, Tokens(study.secrets().signing, 600), lambda: now[0])
    for number in range(len(study.plan.slots) if people is None else people):
        session = visits.enter(f"person-{number}")["session"]
        visits.consent(session)
        with database.read() as connection:  # an excluded subject's place is filled again
            place = connection.scalar(sa.select(participants.c.slot).filter_by(external_id=f"person-{number}"))
        slot = study.plan.slots[place or 0]
        while (shown := visits.next(session))["state"] == "active":
            trial = slot.trials[shown["position"]]
            now[0] += slot.viewing_seconds
            visits.answer(
                session,
                shown["token"],
                Response(
                    chose_first=trial.original_first != fooled(slot, trial, number),
                    exposure_seconds=slot.viewing_seconds if seconds is None else seconds,
                    response_seconds=1.0,
                    focus_lost_viewing=0,
                    focus_lost_answering=0,
                ),
            )
    database.close()


def images_of(study: Study) -> dict[str, int]:
    return {name: number for number, name in enumerate(study.plan.images)}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """A study in which "bicubic" fools with image 0 alone, and "soft" with images 0, 1 and 2."""
    study = make_study(tmp_path_factory.mktemp("results"), photos, viewing_seconds=(1.0, 3.0))
    order = images_of(study)

    def fooled(slot: Slot, trial: Trial, _: int) -> bool:
        return trial.kind == "trial" and order[trial.image] < {"bicubic": 1, "soft": 3}[slot.model]

    take(study, fooled)
    return study


def test_rates_by_model_image_subject_and_time_are_what_the_answers_say(answered):
    results = write_results([str(answered.path)], num_replicates=500)
    (task,) = results["tasks"]
    order = images_of(answered)
    assert task["num_kept"] == task["num_answers"] == 2 * 2 * 4 * 4
    rates = {row["model"]: row for row in task["models"]}
    shown = {
        model: [t.image for s in answered.plan.slots if s.model == model for t in s.trials if t.kind == "trial"]
        for model in rates
    }
    for model, limit in (("bicubic", 1), ("soft", 3)):
        expected = np.mean([order[image] < limit for image in shown[model]])
        assert rates[model]["rate"] == pytest.approx(expected)
        assert rates[model]["low"] <= expected <= rates[model]["high"]
        assert (rates[model]["num_subjects"], rates[model]["num_images"]) == (8, 6)
    for line in task["images"]:
        assert line["rate"] == float(order[line["image"]] < {"bicubic": 1, "soft": 3}[line["model"]])
        assert line["num_trials"] == shown[line["model"]].count(line["image"])
    assert {(row["model"], row["viewing_seconds"]) for row in task["by_viewing_time"]} == {
        (model, seconds) for model in rates for seconds in (1.0, 3.0)
    }
    assert np.mean([line["rate"] for line in task["subjects"] if line["model"] == "soft"]) == rates["soft"]["rate"]
    (pair,) = task["differences"]
    assert pair["difference"] == pytest.approx(rates["bicubic"]["rate"] - rates["soft"]["rate"])


def test_the_extremes_are_the_images_that_fool_least_and_most(answered):
    results = write_results([str(answered.path)], num_replicates=500)
    order = images_of(answered)
    extremes = results["tasks"][0]["extremes"]
    assert {order[entry["image"]] for entry in extremes["soft"]["highest"]} == {0, 1, 2}
    assert {order[entry["image"]] for entry in extremes["soft"]["lowest"]} == {3, 4, 5}
    assert [order[entry["image"]] for entry in extremes["bicubic"]["highest"]] == [0]  # no other fooled anybody
    assert {entry["rate"] for entry in extremes["bicubic"]["lowest"]} == {0.0}


def test_where_all_images_fool_alike_none_is_extreme(photos, tmp_path):
    study = make_study(tmp_path, photos)
    take(study, lambda slot, trial, _: trial.kind == "trial" and slot.model == "soft")
    stale = study.path / "figures" / "extremes-task-1.png"
    stale.parent.mkdir()
    stale.touch()
    (task,) = write_results([str(study.path)], num_replicates=200)["tasks"]
    assert task["extremes"] == {model: {"lowest": [], "highest": []} for model in ("bicubic", "soft")}
    assert not stale.exists()


def test_the_number_above_a_bar_is_clear_of_its_interval():
    rows = [{"model": name, "rate": high, "low": 0.4, "high": high} for name, high in (("a", 0.5), ("b", 1.0))]
    axes = Figure().subplots(1, 1)
    draw_rates([axes], [{"task": 1, "models": rows}])
    places = [text.get_position()[1] for text in axes.texts]
    assert all(place > 100 * row["high"] for place, row in zip(places, rows, strict=True))


def test_raw_trials_and_figures_are_written(answered):
    write_results([str(answered.path)], num_replicates=500)
    with (answered.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(answered.plan.slots) * answered.config.num_positions
    raw = json.loads((answered.path / "trials.json").read_text())
    assert [row["image"] for row in raw] == [row["image"] for row in rows]
    assert "person-" not in (answered.path / "trials.csv").read_text()  # ids stay in the database
    counted = [row for row in raw if row["kind"] == "trial" and row["model"] == "soft" and not row["excluded"]]
    rate = np.mean([row["fooled"] for row in counted])
    results = json.loads((answered.path / "results.json").read_text())
    assert rate == pytest.approx(next(m["rate"] for m in results["tasks"][0]["models"] if m["model"] == "soft"))
    figures = {file.name for file in (answered.path / "figures").iterdir()}
    drawn = {f"{name}.{kind}" for name in ("fool-rates", "viewing-times") for kind in ("svg", "png")}
    assert figures == drawn | {"extremes-task-1.png"}
    for name in figures:
        if name.endswith(".png"):
            with Image.open(answered.path / "figures" / name) as image:
                assert np.asarray(image.convert("L")).std() > 5


def test_both_tasks_side_by_side(answered, photos, tmp_path):
    other = make_study(tmp_path, photos, task=2, viewing_seconds=(3.0,))
    take(other, lambda _, trial, number: trial.kind == "trial" and number % 2 == 0)
    results = write_results([str(other.path), str(answered.path)], out=str(tmp_path / "both"), num_replicates=200)
    assert [task["task"] for task in results["tasks"]] == [1, 2]
    names = {"extremes-task-1.png", "extremes-task-2.png", "fool-rates.svg"}
    assert names <= {file.name for file in (tmp_path / "both" / "figures").iterdir()}
    text = " ".join(tabulate(results).split())  # wrapped at 80 columns
    assert "Which of the two images is a better high quality version of the low resolution image in the middle?" in text
    assert "Which image would you guess is from a camera?" in text
    with pytest.raises(ConfigError, match="at most one of each task"):
        write_results([str(other.path), str(other.path)])
    with pytest.raises(ConfigError, match="1 were given for 2 studies"):
        write_results([str(other.path), str(answered.path)], ["postgresql://x/y"])


def test_the_same_answers_give_the_same_results(answered):
    first = write_results([str(answered.path)], num_replicates=500)
    assert write_results([str(answered.path)], num_replicates=500) == first


def test_subjects_are_excluded_by_the_declared_rules_alone(photos, tmp_path):
    rules = Exclusions(max_same_side=1.0)
    study = make_study(tmp_path, photos, num_attention_checks=3, trials_per_subject=3, exclusions=rules)

    def fooled(_: Slot, trial: Trial, number: int) -> bool:
        failing = number == 0 and trial.kind == "check"  # the first subject fails all three checks, one may fail
        return failing or (trial.kind == "trial" and (number + ord(trial.image[-1])) % 2 == 0)

    take(study, fooled, people=9)  # eight places, one of them twice
    results = write_results([str(study.path)], num_replicates=200)
    raw = json.loads((study.path / "trials.json").read_text())
    excluded = {row["subject"]: row["excluded"] for row in raw if row["excluded"]}
    first = raw[0]["subject"]
    assert excluded == {first: "subject: failed 3 attention checks"}
    assert len({row["subject"] for row in raw}) == 9
    task = results["tasks"][0]
    assert task["num_kept"] == sum(row["kind"] == "trial" and not row["excluded"] for row in raw)
    assert task["people"]["excluded: failed attention checks"] == 1


def test_who_did_not_finish_does_not_count(photos, tmp_path):
    study = make_study(tmp_path, photos)
    with pytest.raises(DataError, match="there are no answers yet"):
        write_results([str(study.path)])
    take(study, lambda *_: False, people=0)
    with pytest.raises(DataError, match=r"no valid trial of bicubic, soft yet \(0 answered, 0 kept\)"):
        write_results([str(study.path)])


def answer(position: int, kind: Kind = "trial", **changes: object) -> Answered:
    values = {
        "position": position,
        "trial": Trial(kind, f"image{position}", original_first=True),
        "chose_first": bool(position % 2),
        "exposure_seconds": 3.0,
        "response_seconds": 1.0,
        "server_seconds": 4.0,
        "focus_lost_viewing": 0,
        "focus_lost_answering": 0,
        "num_presentations": 1,
    }
    return Answered(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"num_presentations": 2}, "shown more than once"),
        ({"focus_lost_viewing": 1}, "focus lost while viewing"),
        ({"focus_lost_answering": 3}, None),  # a subject who looks away after the images are gone has seen them
        ({"exposure_seconds": 3.09}, None),
        ({"exposure_seconds": 3.11}, "viewing time off"),
        ({"exposure_seconds": 2.89}, "viewing time off"),
    ],
)
def test_single_trials_are_excluded_by_the_declared_rules(answered, changes, reason):
    assert trial_exclusion(answered.config.exclusions, 3.0, answer(1, **changes)) == reason


def test_subjects_rules_one_by_one(answered):
    rules = answered.config.exclusions
    trials = tuple(Trial("trial", f"image{n}", original_first=True) for n in range(4))
    slot = Slot("soft", 3.0, trials)
    whole = [answer(n) for n in range(4)]
    assert subject_exclusion(rules, slot, whole) is None
    assert subject_exclusion(rules, slot, whole[:3]) == "incomplete"
    assert subject_exclusion(rules, slot, [answer(n, chose_first=False) for n in range(4)]) == (
        "chose one side in 100% of the trials"
    )
    checks = [answer(n, "check", chose_first=False) for n in range(2)]
    assert subject_exclusion(rules, slot, [*whole, *checks]) == "failed 2 attention checks"
    assert subject_exclusion(rules, slot, [*whole, checks[0]]) is None
