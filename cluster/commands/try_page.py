"""`sr3 try`: a local web page on which a trained model enlarges pictures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import DryRun, Flat
from cluster.options.reading import CommandLine
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.locations import PHOTOS_4X, Location
from pipelines.settings.playground import PlaygroundConfig
from sr3core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options(DryRun):
    """Serve a web page to try a model on: drop a photo, compare samples with interpolation. Ctrl-C stops it."""

    run: Location = PHOTOS_4X
    """What to enlarge with: a run folder that `sr3 train` wrote, a model folder of `sr3 export`, or a registry, for its
    promoted model. By default the model that comes with the program, for photos, 4 times."""
    config: Annotated[PlaygroundConfig, Flat] = field(default_factory=PlaygroundConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)


COMMAND_LINE = CommandLine(
    name="try",
    options=Options,
    essential=("--run", "--host", "--port", "--max-megapixels", "--dry-run"),
    examples=("sr3 try", "sr3 try --run runs/faces --port 9000"),
)


def run(options: Options) -> int:
    """`sr3 try [--run RUN]`."""
    with loading():
        import torch

        from pipelines.playground.model import TriedModel
        from pipelines.registry.registry import find_model

        device = "cuda" if torch.cuda.is_available() and options.inference.gpus != 0 else "cpu"
        model = TriedModel(find_model(options.run), options.inference, device)
        serve = _server()
    if options.dry_run:
        print(f"would serve {model.title} on {options.config.host}:{options.config.port}")
        return DONE
    serve(model, options.config, on_ready=lambda text: print(text, flush=True))
    return DONE


def _server() -> Callable[..., None]:
    try:
        from pipelines.playground.server import serve
    except ImportError as error:
        raise ConfigError(
            f"try: the web server is not installed ({error.name} is missing); run `pip install sr3-on-ray[study]`"
        ) from error
    return serve
