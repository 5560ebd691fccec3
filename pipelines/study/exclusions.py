"""The declared exclusion rules as functions; the server also uses them, to refill an excluded subject's slot."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.study.config import Exclusions
from pipelines.study.design import Slot, Trial


@dataclass(frozen=True, slots=True)
class Answered:
    """A trial and its answer."""

    position: int
    trial: Trial
    chose_first: bool
    exposure_seconds: float
    response_seconds: float
    server_seconds: float
    focus_lost_viewing: int
    focus_lost_answering: int
    num_presentations: int

    @property
    def chose_original(self) -> bool:
        """Whether the original was preferred; if not, the subject was fooled."""
        return self.chose_first == self.trial.original_first


def subject_exclusion(rules: Exclusions, slot: Slot, answered: Sequence[Answered]) -> str | None:
    """Why a subject is excluded altogether; None if they are kept."""
    if len(answered) < len(slot.trials):
        return "incomplete"
    failed = num_failed_checks(answered)
    if failed > rules.max_failed_checks:
        return f"failed {failed} attention checks"
    firsts = [one.chose_first for one in answered if one.trial.kind == "trial"]
    share = max(sum(firsts), len(firsts) - sum(firsts)) / len(firsts)
    return f"chose one side in {share:.0%} of the trials" if share > rules.max_same_side else None


def trial_exclusion(rules: Exclusions, viewing_seconds: float, one: Answered) -> str | None:
    """Why a single trial is excluded; None if it is kept."""
    if rules.drop_seen_again and one.num_presentations > 1:
        return "shown more than once"
    if rules.drop_focus_lost and one.focus_lost_viewing:
        return "focus lost while viewing"
    if abs(one.exposure_seconds - viewing_seconds) > rules.max_exposure_error_seconds:
        return "viewing time off"
    return None


def num_failed_checks(answered: Sequence[Answered]) -> int:
    """Attention checks in which the spoilt copy was preferred."""
    return sum(one.trial.kind == "check" and not one.chose_original for one in answered)
