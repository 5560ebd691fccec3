"""What a study declares before data collection: frozen dataclasses, checked when constructed."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.locations import DatabaseAddress
from sr3core.hyperparameters import require

Task = Literal[1, 2]

QUESTIONS: dict[int, str] = {
    1: "Which of the two images is a better high quality version of the low resolution image in the middle?",
    2: "Which image would you guess is from a camera?",
}
"""Section 4.2.2's wording."""

CONSENT = (
    "You are invited to take part in a research study about how people see images. You will look at pairs of images"
    " for a few seconds each and say which of the two you prefer by the question asked. There are no right or wrong"
    " answers that you could be judged by, and no risks beyond those of looking at a screen.",
    "We store your answers, how long you took, whether this page lost focus, and the participant number with which"
    " you came, if you came with one. We store no name, no address, no network address and no description of your"
    " device.",
    "Taking part is voluntary. You may leave at any time with the button at the top; the answers that you gave until"
    " then are deleted at once.",
)

ANSWER_SECONDS = 3.0
"""About how long subjects take to answer a pair and go on to the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusions:
    """Rules by which answers are excluded; part of the frozen study, so that results cannot influence them."""

    max_failed_checks: int = 1
    """A subject who fails more attention checks than this is excluded."""
    max_same_side: float = 0.95
    """A subject who chose the same side in a larger fraction of the trials is excluded. 1 keeps everyone; use it with
    few trials: with four, one subject in eight chooses a single side by chance alone."""
    max_exposure_error_seconds: float = 0.1
    """A trial whose images were visible for longer or shorter than declared by more than this is excluded."""
    drop_focus_lost: bool = True
    """Exclude trials in which the page lost focus during the viewing time."""
    drop_seen_again: bool = True
    """Exclude trials that were shown more than once, for example after a reload."""

    def __post_init__(self) -> None:
        require(self.max_failed_checks >= 0, f"max_failed_checks: {self.max_failed_checks} is negative")
        require(0.5 < self.max_same_side <= 1, f"max_same_side: {self.max_same_side} is not in (0.5, 1]")
        require(self.max_exposure_error_seconds > 0, "max_exposure_error_seconds: must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """A two-alternative forced-choice study; the defaults are those of section 4.2.2."""

    task: Task
    """1: with the low-resolution input in between ("a better high quality version"); 2: without ("from a camera")."""
    num_images: int = 100
    """Images in the study; chosen at random where the folders hold more."""
    subjects_per_model: int = 50
    """Subjects who complete the study, per model and viewing time."""
    trials_per_subject: int = 50
    """Images that each subject is shown."""
    viewing_seconds: tuple[float, ...] = (3.0,)
    """How long images are visible; each of several times has its own group of subjects."""
    num_attention_checks: int = 4
    """Attention checks among the trials: pairs with one obviously spoilt image."""
    num_practice_trials: int = 3
    """Practice trials at the start, which do not count."""
    abandoned_after_minutes: float = 30.0
    """After this long without a request a subject's place goes to another, though the subject may still continue."""
    answer_within_minutes: float = 10.0
    """How long a shown pair can be answered; after that it is shown again."""
    exclusions: Exclusions = field(default_factory=Exclusions)
    """Which answers are excluded from the results."""
    participant_parameters: tuple[str, ...] = ("PROLIFIC_PID", "workerId", "participant")
    """URL parameters that may carry the participant's id; the first one present is used."""
    completion_code: str = ""
    """Code shown to subjects at the end; if empty, a random one is generated."""
    completion_url: str = ""
    """URL that subjects are sent to at the end; {code} and {participant} are filled in. Empty: no redirection."""
    title: str = "A study of image quality"
    """Title of the pages."""
    consent: tuple[str, ...] = CONSENT
    """Paragraphs that subjects consent to; they should name who is responsible and how to reach them."""
    contact: str = ""
    """Contact for questions; shown below the consent text and at the end."""
    seed: int = 0
    """Seed for the choice of images, their assignment to subjects and sides, and their order."""

    def __post_init__(self) -> None:
        for name in ("num_images", "subjects_per_model", "trials_per_subject"):
            require(getattr(self, name) >= 1, f"{name}: {getattr(self, name)} is not positive")
        for name in ("num_attention_checks", "num_practice_trials"):
            require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative")
        for name in ("abandoned_after_minutes", "answer_within_minutes"):
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive")
        require(
            self.trials_per_subject <= self.num_images,
            f"trials_per_subject: {self.trials_per_subject} is more than num_images {self.num_images}, and no subject"
            f" sees an image twice; add `--trials-per-subject {self.most_trials(self.num_images)}`",
        )
        require(
            self.num_attention_checks <= self.trials_per_subject,
            f"num_attention_checks: {self.num_attention_checks} is more than trials_per_subject"
            f" {self.trials_per_subject}",
        )
        require(len(self.viewing_seconds) >= 1, "viewing_seconds: name at least one")
        require(len(set(self.viewing_seconds)) == len(self.viewing_seconds), "viewing_seconds: a time is listed twice")
        for seconds in self.viewing_seconds:
            require(0.05 <= seconds <= 60, f"viewing_seconds: {seconds} is not within 0.05 and 60")
        require(
            max(self.viewing_seconds) < 60 * self.answer_within_minutes,
            "answer_within_minutes: shorter than the viewing time",
        )
        for name in self.participant_parameters:
            require(bool(re.fullmatch(r"[\w.-]{1,64}", name)), f"participant_parameters: {name!r} is not a plain name")
        require(
            not self.completion_url or self.completion_url.startswith(("https://", "http://")),
            f"completion_url: {self.completion_url!r} does not begin with https://",
        )
        require(bool(self.consent) and all(self.consent), "consent: must not be empty")

    @property
    def question(self) -> str:
        """The question, in the paper's words."""
        return QUESTIONS[self.task]

    @property
    def num_positions(self) -> int:
        """Trials per subject, including practice and attention checks."""
        return self.num_practice_trials + self.trials_per_subject + self.num_attention_checks

    def most_trials(self, num_images: int) -> int:
        """Trials that so many images suffice for, beside those that practice and attention checks take; 1 at least."""
        return max(1, num_images - self.num_practice_trials - self.num_attention_checks)

    @property
    def minutes_per_subject(self) -> int:
        """About how long a subject takes, with three seconds for each answer; rounded up, for people plan by it."""
        return math.ceil(self.num_positions * (max(self.viewing_seconds) + ANSWER_SECONDS) / 60)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Where the server listens and what it allows; none of this changes a result."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 makes it reachable from other machines."""
    port: int = 8100
    """Port; 0 picks a free one."""
    database: DatabaseAddress | None = None
    """SQLAlchemy URL such as postgresql+psycopg://user@host/name; default: STUDY/study.sqlite."""
    root_path: str = ""
    """Path under which a proxy serves the study, such as /study."""
    forwarded_allow_ips: str = "127.0.0.1"
    """Proxies whose X-Forwarded headers are trusted, comma-separated; * trusts everyone."""
    requests_per_second: float = 20.0
    """Average request rate allowed per participant; short bursts may be ten times that."""
    requests_per_second_per_address: float = 400.0
    """The same per network address, which a whole institute may share."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"port: {self.port} is not in 0..65535")
        require(
            self.root_path == "" or bool(re.fullmatch(r"(/[\w.~-]+)+", self.root_path)),
            f"root_path: {self.root_path!r} must begin with / and not end with it, such as /study",
        )
        for name in ("requests_per_second", "requests_per_second_per_address"):
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive")
