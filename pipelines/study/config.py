"""What a study declares before anybody answers: frozen dataclasses, checked when made."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusions:
    """Rules by which answers are left out; part of the frozen study, so that nobody chooses them by the results."""

    max_failed_checks: int = 1
    """A subject who fails more attention checks than this is left out."""
    max_same_side: float = 0.95
    """A subject who chose the same side in a larger share of the trials is left out; 1 keeps all, as do few trials
    need: of four, chance alone puts one subject in eight on one side."""
    max_exposure_error_seconds: float = 0.1
    """A trial whose images were visible for longer or shorter than declared, by more than this, is left out."""
    drop_focus_lost: bool = True
    """Leave out a trial during whose viewing time the page lost focus."""
    drop_seen_again: bool = True
    """Leave out a trial that was shown more than once, after a reload say."""

    def __post_init__(self) -> None:
        require(self.max_failed_checks >= 0, f"max_failed_checks: {self.max_failed_checks} is negative")
        require(0.5 < self.max_same_side <= 1, f"max_same_side: {self.max_same_side} is not in (0.5, 1]")
        require(self.max_exposure_error_seconds > 0, "max_exposure_error_seconds: must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """A 2AFC study: the defaults are section 4.2.2's."""

    task: Task
    """1: with the low-resolution input in between, "a better high quality version"; 2: without, "from a camera"."""
    num_images: int = 100
    """Images of the study; a random choice where the folders hold more."""
    subjects_per_model: int = 50
    """People who complete the study, for each model and viewing time."""
    trials_per_subject: int = 50
    """Images that each of them is shown."""
    viewing_seconds: tuple[float, ...] = (3.0,)
    """How long images are visible; several times make a group of subjects each."""
    num_attention_checks: int = 4
    """Trials among the others with one image that is obviously spoilt."""
    num_practice_trials: int = 3
    """Trials before the others that do not count."""
    abandoned_after_minutes: float = 30.0
    """A person who was silent for so long makes room for another; who comes back later goes on all the same."""
    answer_within_minutes: float = 10.0
    """A token is good for so long; later the pair is shown again."""
    exclusions: Exclusions = field(default_factory=Exclusions)
    """Which answers will be left out."""
    participant_parameters: tuple[str, ...] = ("PROLIFIC_PID", "workerId", "participant")
    """Names under which the address may carry the participant's id; the first that is there counts."""
    completion_code: str = ""
    """What people get to see at the end; empty makes a random one."""
    completion_url: str = ""
    """Where people are sent at the end; {code} and {participant} are filled in. Empty: nowhere."""
    title: str = "A study of image quality"
    """Heading of the pages."""
    consent: tuple[str, ...] = CONSENT
    """Paragraphs that people agree to; name who is responsible and how to reach them."""
    contact: str = ""
    """Who answers questions; shown below the consent text and at the end."""
    seed: int = 0
    """Of the choice of images, of who sees what on which side, and of the order."""

    def __post_init__(self) -> None:
        for name in ("num_images", "subjects_per_model", "trials_per_subject"):
            require(getattr(self, name) >= 1, f"{name}: {getattr(self, name)} is not positive")
        for name in ("num_attention_checks", "num_practice_trials"):
            require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative")
        for name in ("abandoned_after_minutes", "answer_within_minutes"):
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive")
        require(
            self.trials_per_subject <= self.num_images,
            f"trials_per_subject: {self.trials_per_subject} is more than num_images {self.num_images};"
            " nobody sees an image twice",
        )
        require(
            self.num_attention_checks <= self.trials_per_subject,
            f"num_attention_checks: {self.num_attention_checks} is more than trials_per_subject"
            f" {self.trials_per_subject}",
        )
        require(len(self.viewing_seconds) >= 1, "viewing_seconds: name at least one")
        require(len(set(self.viewing_seconds)) == len(self.viewing_seconds), "viewing_seconds: a time is there twice")
        for seconds in self.viewing_seconds:
            require(0.05 <= seconds <= 60, f"viewing_seconds: {seconds} is not within 0.05 and 60")
        require(
            max(self.viewing_seconds) < 60 * self.answer_within_minutes,
            "answer_within_minutes: shorter than the viewing time",
        )
        for name in self.participant_parameters:
            require(bool(re.fullmatch(r"[\w.-]{1,64}", name)), f"participant_parameters: {name!r} is no plain name")
        require(
            not self.completion_url or self.completion_url.startswith(("https://", "http://")),
            f"completion_url: {self.completion_url!r} does not begin with https://",
        )
        require(bool(self.consent) and all(self.consent), "consent: a text is needed")

    @property
    def question(self) -> str:
        """What is asked, in the paper's words."""
        return QUESTIONS[self.task]

    @property
    def num_positions(self) -> int:
        """Trials that a person goes through, practice and attention checks among them."""
        return self.num_practice_trials + self.trials_per_subject + self.num_attention_checks


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Where the server listens and what it allows; nothing here changes a result."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is reached from other machines."""
    port: int = 8100
    """Port; 0 takes a free one."""
    database: DatabaseAddress | None = None
    """SQLAlchemy address such as postgresql+psycopg://user@host/name; default: STUDY/study.sqlite."""
    root_path: str = ""
    """Path under which a proxy serves the study, such as /study."""
    forwarded_allow_ips: str = "127.0.0.1"
    """Proxies whose X-Forwarded headers are believed, comma-separated; * believes everyone."""
    requests_per_second: float = 20.0
    """Requests that one participant may make, on average; a short burst may be ten times that."""
    requests_per_second_per_address: float = 400.0
    """The same for one network address, behind which a whole institute may sit."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"port: {self.port} is not in 0..65535")
        require(
            self.root_path == "" or bool(re.fullmatch(r"(/[\w.~-]+)+", self.root_path)),
            f"root_path: {self.root_path!r} must begin with / and not end with it, such as /study",
        )
        for name in ("requests_per_second", "requests_per_second_per_address"):
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive")
