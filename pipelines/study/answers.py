"""Rows of the database as answered trials, and a study's progress."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pipelines.study.database import Database, answers, participants
from pipelines.study.design import Slot
from pipelines.study.exclusions import Answered, num_failed_checks
from pipelines.study.study_folder import Study

MAX_LISTED = 500
"""Number of participants, those seen last, that the administrator's page lists."""


def subject_rows(connection: sa.Connection, participant: int) -> Sequence[sa.Row[Any]]:
    """Answers of one participant, in order."""
    return connection.execute(sa.select(answers).filter_by(participant=participant).order_by(answers.c.position)).all()


def answered_by(slot: Slot, rows: Sequence[sa.Row[Any]]) -> list[Answered]:
    """Answers together with what was shown."""
    return [
        Answered(
            row.position,
            slot.trials[row.position],
            row.chose_first,
            row.exposure_seconds,
            row.response_seconds,
            row.server_seconds,
            row.focus_lost_viewing,
            row.focus_lost_answering,
            row.num_presentations,
        )
        for row in rows
    ]


def progress(study: Study, database: Database, now: float | None = None) -> dict[str, Any]:
    """A study's progress. No fool rates: seeing interim results tempts one to stop once they look good."""
    now = time.time() if now is None else now
    with database.read() as connection:
        latest_first = (participants.c.last_seen_at.desc(), participants.c.id.desc())
        people = connection.execute(sa.select(participants).order_by(*latest_first)).all()
        rows = connection.execute(sa.select(answers).order_by(answers.c.participant, answers.c.position)).all()
    by_person: dict[int, list[sa.Row[Any]]] = {}
    for row in rows:
        by_person.setdefault(row.participant, []).append(row)
    silent = now - 60 * study.config.abandoned_after_minutes
    groups = {_group(slot): Counter(wanted=0) for slot in study.plan.slots}
    for slot in study.plan.slots:
        groups[_group(slot)]["wanted"] += 1
    listed = []
    for person in people:
        state = "silent" if person.state == "active" and person.last_seen_at < silent else person.state
        state = "excluded" if state == "done" and not person.valid else state
        own = by_person.get(person.id, [])
        slot = study.plan.slots[person.slot] if person.slot is not None else None
        if slot is not None:
            groups[_group(slot)][state] += 1
        listed.append(
            {
                "id": person.external_id,
                "state": state,
                "answered": len(own),
                "seconds_since": now - person.last_seen_at,
                "failed_checks": num_failed_checks(answered_by(slot, own)) if slot is not None else 0,
                "focus_lost": sum(row.focus_lost_viewing + row.focus_lost_answering for row in own),
            }
        )
    names = ("wanted", "done", "active", "silent", "excluded")
    return {
        "title": study.config.title,
        "task": study.config.task,
        "num_positions": study.config.num_positions,
        "groups": [{"name": name, **{key: counts[key] for key in names}} for name, counts in groups.items()],
        "num_answers": len(rows),
        "num_participants": len(people),
        "participants": listed[:MAX_LISTED],
    }


def _group(slot: Slot) -> str:
    return f"{slot.model}, {slot.viewing_seconds:g} s"
