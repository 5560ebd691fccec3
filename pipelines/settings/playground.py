"""Settings of `sr3 try`."""

from dataclasses import dataclass

from sr3core.hyperparameters import require


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaygroundConfig:
    """Where the page is served and what it allows; none of this changes an image."""

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets everybody who reaches this machine upscale pictures on it, without a
    password."""
    port: int = 8200
    """Port; 0 picks a free one."""
    max_megapixels: float = 16.0
    """Largest output in megapixels; a larger picture is refused."""
    max_samples: int = 6
    """Most samples of one picture."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"port: {self.port} is not in 0..65535")
        require(self.max_megapixels > 0, f"max_megapixels: {self.max_megapixels} is not positive")
        require(self.max_samples >= 1, f"max_samples: {self.max_samples} is not positive")
