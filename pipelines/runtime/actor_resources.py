"""The CPUs and GPUs of actors that each hold a copy of the networks: one rule for all commands that run networks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.runtime.node_waiting import WAIT_SECONDS, Bundle, can_gain_nodes, lacking, wait_for_bundles
from sr3core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ActorResources:
    """How many actors work in parallel, and what each of them gets."""

    num_actors: int
    """Actors, at least 1."""
    cpus: int
    """CPUs of each, and its threads; at least 1."""
    gpus: float
    """GPUs of each: 1, a fraction that shares one, or 0."""

    @property
    def device(self) -> str:
        """torch's name of the device that an actor computes on."""
        return "cuda" if self.gpus else "cpu"


def find_actor_resources(
    wanted: int | None, gpus: float | None, prefers_gpu: bool, say: Callable[[str], None] | None = None
) -> ActorResources:
    """Decide on the actors, and wait until the first one fits; Ray must be initialised.

    Args:
        wanted: number of actors; None for one a GPU, or one on CPUs.
        gpus: of each actor; None for a GPU where the cluster has one, divided if there are more actors, and also where
            it may still gain one and prefers_gpu holds.
        prefers_gpu: whether the networks are of a size that was trained on GPUs.
        say: called with what is waited for; None prints it.

    Raises:
        ConfigError: this command's own Ray has too little for them, or no node joined in time.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpu = any(node.get("GPU", 0) > 0 for node in nodes)
    if gpus is None:
        gpus = 1.0 if has_gpu or (prefers_gpu and can_gain_nodes()) else 0.0
        if has_gpu and wanted:
            gpus = min(1.0, sum(node.get("GPU", 0) for node in nodes) / wanted)
    bundle = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
    _wait(bundle, wanted or 1, say or (lambda text: print(text, flush=True)))
    return share_nodes([node["Resources"] for node in ray.nodes() if node["Alive"]], wanted, gpus)


def _wait(bundle: Bundle, num_actors: int, say: Callable[[str], None]) -> None:
    """Wait for the first actor where nodes can join; where none can, refuse what would wait for ever."""
    on_cpus = "; --inference.gpus 0 computes on CPUs" if "GPU" in bundle else ""
    if not can_gain_nodes():
        if missing := lacking(bundle, num_actors):
            raise ConfigError(f"num_actors: {num_actors} actors need {missing}; lower --num-actors{on_cpus}")
        return

    def too_late(missing: str) -> str:
        return f"inference.gpus: an actor needs {missing}, and in {WAIT_SECONDS:g} s no node joined{on_cpus}"

    if lacking(bundle, 1):
        wait_for_bundles(bundle, 1, WAIT_SECONDS, lambda text: say(text + on_cpus), too_late)


def share_nodes(nodes: Sequence[Bundle], wanted: int | None, gpus: float) -> ActorResources:
    """Share the nodes that can take an actor among the actors.

    Args:
        nodes: resources of each node.
        wanted: number of actors; None for as many as have a GPU each, or one on CPUs.
        gpus: of each actor.
    """
    able = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
    slots = [int(node.get("GPU", 0) / gpus + 1e-9) if gpus else int(node["CPU"]) for node in able]
    slots = [min(count, int(node["CPU"])) for count, node in zip(slots, able, strict=True)]
    num_actors = wanted or (max(1, sum(slots)) if gpus else 1)
    most = -(-num_actors // max(len(able), 1))  # on a node, if they are spread evenly
    cpus = [int(node["CPU"]) // min(count, most) for count, node in zip(slots, able, strict=True)]
    return ActorResources(num_actors, max(1, min(cpus, default=1)), gpus)
