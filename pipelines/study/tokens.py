"""Signed tokens: who a participant is, and which showing of a pair an answer belongs to."""

from itsdangerous import BadSignature, SignatureExpired, URLSafeSerializer, URLSafeTimedSerializer

from pipelines.study.refusals import Refused


class Tokens:
    """Makes and reads the tokens of one study; nobody without its key can make or change one.

    A signature alone would let an answer be sent twice: that each token works once is the database's part.
    """

    def __init__(self, key: str, answer_within_seconds: int) -> None:
        self._sessions = URLSafeSerializer(key, salt="session")
        self._trials = URLSafeTimedSerializer(key, salt="trial")
        self._max_age = answer_within_seconds

    def session(self, participant: int) -> str:
        """A participant's own token; it holds for the whole study."""
        return self._sessions.dumps(participant)

    def trial(self, participant: int, nonce: str) -> str:
        """The token of one showing of a pair."""
        return self._trials.dumps([participant, nonce])

    def read_session(self, token: str) -> int:
        """The participant.

        Raises:
            Refused: the token was not made here.
        """
        try:
            return int(self._sessions.loads(token))
        except BadSignature as error:
            raise Refused(401, "session", "Please open the study's address again.") from error

    def read_trial(self, token: str, participant: int) -> str:
        """The nonce of the showing.

        Raises:
            Refused: the token was not made here, is another participant's, or is too old.
        """
        try:
            owner, nonce = self._trials.loads(token, max_age=self._max_age)
        except SignatureExpired as error:
            raise Refused(410, "expired", "That took too long; the pair is shown again.") from error
        except BadSignature as error:
            raise Refused(403, "token", "This answer does not belong to a pair that was shown.") from error
        if owner != participant:
            raise Refused(403, "token", "This answer does not belong to a pair that was shown.")
        return nonce
