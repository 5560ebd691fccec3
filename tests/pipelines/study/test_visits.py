"""What participants may do: one answer per pair, places that become free, exclusions as declared."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from pipelines.study.answers import progress
from pipelines.study.database import Database, answers, open_database, presentations
from pipelines.study.refusals import Refused
from pipelines.study.study_folder import Study
from pipelines.study.tokens import Tokens
from pipelines.study.visits import Response, Visits
from tests.study_subjects import make_study, right_answer


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """Eight places of six positions each."""
    return make_study(
        tmp_path_factory.mktemp("visits"),
        photos,
        viewing_seconds=(3.0,),
        completion_url="https://x.org/?c={code}&p={participant}",
    )


class Clock:
    """Time that passes when a test says so."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock for one test."""
    return Clock()


@pytest.fixture
def database(study: Study, tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    opened = open_database(None, tmp_path / "study.sqlite", study.fingerprint)
    yield opened
    opened.close()


@pytest.fixture
def visits(study: Study, database: Database, clock: Clock) -> Visits:
    """The study's participants."""
    return Visits(study, database, Tokens(study.secrets().signing, 600), clock)


def response(choice: str, **changes: Any) -> Response:
    values = {"exposure_seconds": 3.0, "response_seconds": 1.0, "focus_lost_viewing": 0, "focus_lost_answering": 0}
    return Response(chose_first=choice == "first", **(values | changes))


def join(visits: Visits, name: str) -> str:
    session = visits.enter(name)["session"]
    visits.consent(session)
    return session


def slot_of(database: Database, name: str) -> int:
    with database.read() as connection:
        return connection.execute(
            sa.text("SELECT slot FROM participants WHERE external_id = :n"), {"n": name}
        ).scalar_one()


def go_through(visits: Visits, study: Study, clock: Clock, session: str, slot: int, wrong: str = "") -> dict[str, Any]:
    """Answer everything correctly except for trials of the kind `wrong`."""
    while (shown := visits.next(session))["state"] == "active":
        clock.now += 3
        position = shown["position"]
        right = right_answer(study, slot, position)
        other = {"first": "second", "second": "first"}[right]
        choice = other if study.plan.slots[slot].trials[position].kind == wrong else right
        visits.answer(session, shown["token"], response(choice))
    return shown


def test_a_visit_from_consent_to_code(visits, study, clock, database):
    entered = visits.enter("anna")
    assert entered["state"] == "entered"
    assert visits.next(entered["session"])["state"] == "entered"  # nothing is shown before consent
    session = join(visits, "anna")
    shown = visits.next(session)
    assert set(shown["images"]) == {"first", "second", "input"}
    assert shown["viewing_seconds"] == 3.0
    assert shown["practice"] is True
    assert "code" not in shown
    done = go_through(visits, study, clock, session, slot_of(database, "anna"))
    assert done["state"] == "done"
    assert done["code"] == study.config.completion_code
    assert done["redirect"] == f"https://x.org/?c={study.config.completion_code}&p=anna"
    assert visits.enter("anna")["state"] == "done"  # the address again: no second visit


def test_nothing_that_is_sent_tells_the_side(visits, study, database):
    session = join(visits, "anna")
    shown = visits.next(session)
    slot = study.plan.slots[slot_of(database, "anna")]
    text = str(shown)
    names = {*study.plan.models, *(trial.image for trial in slot.trials), *study.plan.checksums}
    assert not [name for name in names if name in text]
    again = visits.next(session)
    assert not set(again["images"].values()) & set(shown["images"].values())  # addresses are never reused


def test_an_answer_before_the_viewing_time_is_refused_and_may_come_again(visits, clock):
    session = join(visits, "anna")
    shown = visits.next(session)
    clock.now += 2.9
    with pytest.raises(Refused) as refused:
        visits.answer(session, shown["token"], response("first"))
    assert (refused.value.status, refused.value.code) == (425, "early")
    assert refused.value.retry_after == pytest.approx(0.1)
    clock.now += 0.1
    assert visits.answer(session, shown["token"], response("first")) == {"stored": True, "position": 1}


def test_a_token_works_once(visits, clock, database):
    session = join(visits, "anna")
    shown = visits.next(session)
    clock.now += 3
    visits.answer(session, shown["token"], response("first"))
    for choice in ("first", "second"):
        with pytest.raises(Refused) as refused:
            visits.answer(session, shown["token"], response(choice))
        assert (refused.value.status, refused.value.code) == (409, "answered")
    with database.read() as connection:
        assert connection.execute(sa.select(answers.c.position, answers.c.chose_first)).all() == [(0, True)]


@pytest.mark.parametrize(("answering", "other", "seconds"), [(0, 1, 4.0), (1, 0, 3.0)])
def test_either_of_two_tabs_may_answer_once_timed_from_its_own_display(
    visits, clock, database, answering, other, seconds
):
    session = join(visits, "anna")
    tabs = [visits.next(session)]
    clock.now += 1
    tabs.append(visits.next(visits.enter("anna")["session"]))
    assert tabs[0]["position"] == tabs[1]["position"] == 0
    clock.now += 3
    assert visits.answer(session, tabs[answering]["token"], response("first")) == {"stored": True, "position": 1}
    with pytest.raises(Refused) as refused:
        visits.answer(session, tabs[other]["token"], response("second"))
    assert (refused.value.status, refused.value.code) == (409, "answered")
    with database.read() as connection:
        row = connection.execute(sa.select(answers)).one()
    assert (row.chose_first, row.server_seconds, row.num_presentations) == (True, seconds, 2)


def test_a_second_tab_does_not_make_the_first_ones_answer_early_nor_its_own_late(visits, clock):
    session = join(visits, "anna")
    first = visits.next(session)
    clock.now += 2
    second = visits.next(session)
    clock.now += 1
    with pytest.raises(Refused) as refused:
        visits.answer(session, second["token"], response("first"))
    assert refused.value.retry_after == pytest.approx(2)
    assert visits.answer(session, first["token"], response("first"))["stored"]


def _flip(token: str) -> str:
    return token[:5] + ("A" if token[5] != "A" else "B") + token[6:]


class _AnHourAgo(TimestampSigner):
    def get_timestamp(self) -> int:
        return super().get_timestamp() - 3600


def test_tampered_foreign_and_expired_tokens_are_refused(visits, study, clock, database):
    session, other = join(visits, "anna"), join(visits, "ben")
    shown, theirs = visits.next(session), visits.next(other)
    clock.now += 3
    key = study.secrets().signing
    with database.read() as connection:
        nonce = connection.scalar(sa.select(presentations.c.nonce).filter_by(participant=1))
    expired = URLSafeTimedSerializer(key, salt="trial", signer=_AnHourAgo).dumps([1, nonce])
    wrong_key = URLSafeTimedSerializer("guess", salt="trial").dumps([1, nonce])
    cases = {
        _flip(shown["token"]): 403,
        theirs["token"]: 403,
        wrong_key: 403,
        session: 403,  # signed with the same key for another purpose
        "": 403,
        expired: 410,
    }
    for token, status in cases.items():
        with pytest.raises(Refused) as refused:
            visits.answer(session, token, response("first"))
        assert refused.value.status == status, token
    with pytest.raises(Refused) as refused:
        visits.answer(_flip(session), shown["token"], response("first"))
    assert refused.value.status == 401
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(answers)) == 0
    assert visits.answer(session, shown["token"], response("first"))["stored"]  # the true one still works


def test_an_image_address_works_once_and_not_after_the_answer(visits, clock):
    session = join(visits, "anna")
    shown = visits.next(session)
    nonce = shown["images"]["first"].split("/")[1]
    assert visits.picture(nonce, "first").is_file()
    with pytest.raises(Refused, match="already been shown"):
        visits.picture(nonce, "first")
    clock.now += 3
    visits.answer(session, shown["token"], response("first"))
    for address in ((nonce, "second"), (nonce, "../study.json"), ("0" * 32, "first")):
        with pytest.raises(Refused) as refused:
            visits.picture(*address)
        assert refused.value.status == 404


def test_every_place_is_taken_once_and_then_the_study_is_full(visits, study, database):
    for number in range(8):
        join(visits, f"p{number}")
    assert Counter(slot_of(database, f"p{number}") for number in range(8)) == Counter(range(8))
    with pytest.raises(Refused) as refused:
        join(visits, "too-late")
    assert refused.value.code == "full"


def test_places_of_the_silent_and_of_those_who_leave_are_free_again(visits, study, clock, database):
    sessions = [join(visits, f"p{number}") for number in range(8)]
    left = slot_of(database, "p3")
    shown = visits.next(sessions[3])
    clock.now += 3
    visits.answer(sessions[3], shown["token"], response("first"))
    assert visits.leave(sessions[3])["state"] == "left"
    with database.read() as connection:  # what they answered is gone
        assert connection.scalar(sa.select(sa.func.count()).select_from(answers)) == 0
    assert visits.enter("p3")["state"] == "left"
    join(visits, "q0")
    assert slot_of(database, "q0") == left
    clock.now += 31 * 60
    for number in (0, 1, 2, 4, 5, 6):
        visits.next(sessions[number])
    silent = slot_of(database, "p7")
    visits.next(visits.enter("q0")["session"])
    join(visits, "q1")
    assert slot_of(database, "q1") == silent
    assert visits.next(sessions[7])["state"] == "active"  # someone who returns after all may continue


def test_the_place_of_a_subject_who_fails_the_checks_is_filled_again(visits, study, clock, database):
    study_fails = study.config.exclusions.max_failed_checks + 1
    assert study_fails > study.config.num_attention_checks  # one check, one may fail: nobody is excluded here by checks
    session = join(visits, "anna")
    go_through(visits, study, clock, session, slot_of(database, "anna"), wrong="check")
    join(visits, "ben")
    assert slot_of(database, "ben") != slot_of(database, "anna")
    found = progress(study, database, clock.now)
    assert found["participants"][1]["failed_checks"] == 1
    assert "rate" not in str(found)


def test_the_place_of_an_excluded_subject_is_filled_again(visits, study, clock, database):
    session = join(visits, "same-side")
    while (shown := visits.next(session))["state"] == "active":
        clock.now += 3
        visits.answer(session, shown["token"], response("first"))
    join(visits, "ben")
    assert slot_of(database, "ben") == slot_of(database, "same-side")
    states = {person["id"]: person["state"] for person in progress(study, database, clock.now)["participants"]}
    assert states == {"same-side": "excluded", "ben": "active"}


def test_progress_counts_groups(visits, study, clock, database):
    session = join(visits, "anna")
    go_through(visits, study, clock, session, slot_of(database, "anna"))
    join(visits, "ben")
    found = progress(study, database, clock.now)
    assert sum(group["wanted"] for group in found["groups"]) == 8
    assert sum(group["done"] for group in found["groups"]) == 1
    assert sum(group["active"] for group in found["groups"]) == 1
    assert found["num_answers"] == 6


def test_whoever_was_seen_last_is_listed_first_whatever_they_did(visits, study, clock, database):
    def listed() -> list[tuple[str, float]]:
        return [(p["id"], p["seconds_since"]) for p in progress(study, database, clock.now)["participants"]]

    sessions = {}
    for name in ("anna", "ben", "carl"):
        sessions[name] = join(visits, name)
        clock.now += 10
    assert listed() == [("carl", 10), ("ben", 20), ("anna", 30)]
    shown = visits.next(sessions["anna"])
    clock.now += 3
    visits.answer(sessions["anna"], shown["token"], response("first"))
    assert listed() == [("anna", 0), ("carl", 13), ("ben", 23)]
    clock.now += 1
    visits.enter("ben")  # a reload
    assert listed() == [("ben", 0), ("anna", 1), ("carl", 14)]
    clock.now += 1
    visits.leave(sessions["carl"])
    assert listed() == [("carl", 0), ("ben", 1), ("anna", 2)]
