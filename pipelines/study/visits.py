"""What a participant may do, without HTTP: enter, consent, see the next pair, answer, leave.

All state that matters is in the database, so a server can be killed and restarted between any two requests.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from pipelines.study.answers import answered_by, subject_rows
from pipelines.study.database import Database, answers, participants, presentations, study_row
from pipelines.study.design import Slot
from pipelines.study.exclusions import subject_exclusion
from pipelines.study.refusals import Refused
from pipelines.study.study_folder import Study
from pipelines.study.tokens import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What the page sends after a person has chosen."""

    chose_first: bool
    exposure_seconds: float
    response_seconds: float
    focus_lost_viewing: int
    focus_lost_answering: int


class Visits:
    """The participants of one study."""

    def __init__(
        self, study: Study, database: Database, tokens: Tokens, clock: Callable[[], float] = time.time
    ) -> None:
        self._study, self._database, self._tokens, self._clock = study, database, tokens, clock
        self._fetched: set[tuple[str, str]] = set()
        """Images that were delivered; after a restart a URL works once more."""

    def enter(self, external_id: str) -> dict[str, Any]:
        """Enter for the first time, or return; gives the participant's session and position."""
        now = self._clock()
        try:
            with self._database.write() as connection:
                seen = participants.update().filter_by(external_id=external_id).values(last_seen_at=now)
                if not connection.execute(seen).rowcount:
                    row = {"external_id": external_id, "state": "entered", "entered_at": now, "last_seen_at": now}
                    connection.execute(participants.insert().values(row))
        except IntegrityError:
            pass  # the same person's other tab came first
        with self._database.read() as connection:
            row = connection.execute(sa.select(participants).filter_by(external_id=external_id)).one()
            return {"session": self._tokens.session(row.id), **self._where(connection, row)}

    def consent(self, session: str) -> dict[str, Any]:
        """Consent to take part, and get a slot.

        Raises:
            Refused: the study is full.
        """
        participant, now = self._tokens.read_session(session), self._clock()
        with self._database.write() as connection:
            connection.execute(sa.select(study_row.c.id).with_for_update())  # PostgreSQL: one consent at a time
            row = self._participant(connection, participant)
            if row.state == "entered":
                slot = self._free_slot(connection, now)
                changes = {"state": "active", "slot": slot, "last_seen_at": now}
                connection.execute(participants.update().filter_by(id=participant).values(changes))
            return self._where(connection, self._participant(connection, participant))

    def next(self, session: str) -> dict[str, Any]:
        """Show the next pair; after a reload the same pair again, and the repetition is counted.

        Returns:
            the token that an answer needs, the images' URLs and the viewing time; or that the person is done.
        """
        participant, now = self._tokens.read_session(session), self._clock()
        with self._database.write() as connection:
            row = self._participant(connection, participant)
            where = self._where(connection, row)
            if row.state != "active":
                return where
            slot, position, nonce = self._slot(row), where["position"], secrets.token_hex(16)
            showing = {"nonce": nonce, "participant": participant, "position": position, "issued_at": now}
            connection.execute(presentations.insert().values(showing))
            connection.execute(participants.update().filter_by(id=participant).values(last_seen_at=now))
        return {
            **where,
            "token": self._tokens.trial(participant, nonce),
            "practice": slot.trials[position].kind == "practice",
            "viewing_seconds": slot.viewing_seconds,
            "images": {place: f"image/{nonce}/{place}" for place in self._study.files_of(slot, position)},
        }

    def picture(self, nonce: str, place: str) -> Path:
        """File behind an image's URL, which works once, and only until the pair is answered.

        Raises:
            Refused: the URL was never issued, or has been used.
        """
        gone = Refused(404, "image", "There is no such image, or it has already been shown.")
        with self._database.read() as connection:
            showing = connection.execute(sa.select(presentations).filter_by(nonce=nonce)).one_or_none()
            if showing is None:
                raise gone
            row = self._participant(connection, showing.participant)
            answered = self._num_answers(connection, showing.participant)
        if row.state != "active" or showing.position != answered or (nonce, place) in self._fetched:
            raise gone
        files = self._study.files_of(self._slot(row), showing.position)
        if place not in files:
            raise gone
        self._fetched.add((nonce, place))
        return self._study.picture(files[place])

    def answer(self, session: str, token: str, response: Response) -> dict[str, Any]:
        """Store an answer, once.

        A pair may have been shown several times, in two tabs or after a reload; the first answer to arrive counts,
        whichever display it belongs to.

        Raises:
            Refused: the token is forged or expired, its pair has been answered, or the answer arrives before the
                viewing time can have passed since the token's own display.
        """
        participant, now = self._tokens.read_session(session), self._clock()
        nonce = self._tokens.read_trial(token, participant)
        again = Refused(409, "answered", "This pair has already been answered.")
        try:
            with self._database.write() as connection:
                row = self._participant(connection, participant)
                position = self._num_answers(connection, participant)
                showings = connection.execute(
                    sa.select(presentations).filter_by(participant=participant, position=position)
                ).all()
                own = next((showing for showing in showings if showing.nonce == nonce), None)
                if row.state != "active" or own is None:
                    raise again
                slot, elapsed = self._slot(row), now - own.issued_at
                if elapsed < slot.viewing_seconds:
                    wait = slot.viewing_seconds - elapsed
                    raise Refused(425, "early", "The answer came before the viewing time was over.", retry_after=wait)
                values = {f: getattr(response, f) for f in Response.__slots__}
                values |= {"participant": participant, "position": position, "nonce": nonce, "answered_at": now}
                values |= {"server_seconds": elapsed, "num_presentations": len(showings)}
                connection.execute(answers.insert().values(values))
                connection.execute(participants.update().filter_by(id=participant).values(last_seen_at=now))
                if position + 1 == len(slot.trials):
                    self._finish(connection, participant, slot, now)
        except IntegrityError as error:
            raise again from error
        self._fetched -= {(showing.nonce, place) for showing in showings for place in ("first", "second", "input")}
        return {"stored": True, "position": position + 1}

    def leave(self, session: str) -> dict[str, Any]:
        """Withdraw: the person's answers are deleted, and their slot becomes free again."""
        participant, now = self._tokens.read_session(session), self._clock()
        with self._database.write() as connection:
            row = self._participant(connection, participant)
            if row.state in ("entered", "active"):
                connection.execute(answers.delete().filter_by(participant=participant))
                connection.execute(presentations.delete().filter_by(participant=participant))
                changes = {"state": "left", "slot": None, "last_seen_at": now}
                connection.execute(participants.update().filter_by(id=participant).values(changes))
            return self._where(connection, self._participant(connection, participant))

    def _participant(self, connection: sa.Connection, participant: int) -> sa.Row[Any]:
        row = connection.execute(sa.select(participants).filter_by(id=participant)).one_or_none()
        if row is None:  # a session of an earlier database
            raise Refused(401, "session", "Please open the study's link again.")
        return row

    def _slot(self, row: sa.Row[Any]) -> Slot:
        return self._study.plan.slots[row.slot]

    def _num_answers(self, connection: sa.Connection, participant: int) -> int:
        count = sa.select(sa.func.count()).select_from(answers).where(answers.c.participant == participant)
        return connection.scalar(count) or 0

    def _where(self, connection: sa.Connection, row: sa.Row[Any]) -> dict[str, Any]:
        """A person's position, and for those who are done the completion code."""
        config = self._study.config
        found = {"state": row.state, "position": self._num_answers(connection, row.id)}
        found["num_positions"] = config.num_positions
        if row.state == "done":
            fill = {"code": config.completion_code, "participant": row.external_id}
            found["code"] = config.completion_code
            found["redirect"] = _filled(config.completion_url, fill)
        return found

    def _free_slot(self, connection: sa.Connection, now: float) -> int:
        """The first slot that nobody has validly finished and nobody is working on."""
        since = now - 60 * self._study.config.abandoned_after_minutes
        done = (participants.c.state == "done") & participants.c.valid
        busy = (participants.c.state == "active") & (participants.c.last_seen_at >= since)
        taken = set(connection.scalars(sa.select(participants.c.slot).where(done | busy)))
        free = next((slot for slot in range(len(self._study.plan.slots)) if slot not in taken), None)
        if free is None:
            raise Refused(403, "full", "This study has all the participants it needs at the moment. Thank you!")
        return free

    def _finish(self, connection: sa.Connection, participant: int, slot: Slot, now: float) -> None:
        rows = subject_rows(connection, participant)
        reason = subject_exclusion(self._study.config.exclusions, slot, answered_by(slot, rows))
        changes = {"state": "done", "finished_at": now, "valid": reason is None}
        connection.execute(participants.update().filter_by(id=participant).values(changes))


def _filled(url: str, values: dict[str, str]) -> str:
    """The URL with {code} and {participant} filled in, percent-encoded; other braces are left unchanged."""
    for name, value in values.items():
        url = url.replace("{" + name + "}", quote(value, safe=""))
    return url
