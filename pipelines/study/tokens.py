"""Signed tokens, which identify a participant, or the display of a pair that an answer belongs to."""

from itsdangerous import BadSignature, SignatureExpired, URLSafeSerializer, URLSafeTimedSerializer

from pipelines.study.refusals import Refused


class Tokens:
    """Creates and reads the tokens of one study; without its key, nobody can create or alter one.

    A signature alone does not prevent an answer from being sent twice; the database ensures that a token works once.
    """

    def __init__(self, key: str, answer_within_seconds: int) -> None:
        self._sessions = URLSafeSerializer(key, salt="session")
        self._trials = URLSafeTimedSerializer(key, salt="trial")
        self._max_age = answer_within_seconds

    def session(self, participant: int) -> str:
        """A participant's own token, valid for the whole study."""
        return self._sessions.dumps(participant)

    def trial(self, participant: int, nonce: str) -> str:
        """The token of one display of a pair."""
        return self._trials.dumps([participant, nonce])

    def read_session(self, token: str) -> int:
        """The participant that a token identifies.

        Raises:
            Refused: the token was not created with this study's key.
        """
        try:
            return int(self._sessions.loads(token))
        except BadSignature as error:
            raise Refused(401, "session", "Please open the study's link again.") from error

    def read_trial(self, token: str, participant: int) -> str:
        """The nonce of the display.

        Raises:
            Refused: the token was not created with this study's key, is another participant's, or is too old.
        """
        try:
            owner, nonce = self._trials.loads(token, max_age=self._max_age)
        except SignatureExpired as error:
            raise Refused(410, "expired", "That took too long; the pair will be shown again.") from error
        except BadSignature as error:
            raise Refused(403, "token", "This answer does not belong to a pair that was shown.") from error
        if owner != participant:
            raise Refused(403, "token", "This answer does not belong to a pair that was shown.")
        return nonce
