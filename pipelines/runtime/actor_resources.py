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


@dataclass(frozen=True, slots=True)
class Need:
    """What processes that run networks need, and how it is said."""

    bundle: Bundle
    """Of each process."""
    whose: str
    """Start of the message, with the verb: `num_actors: 3 actors need`."""
    option: str
    """The option that asks for less."""


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
    gpus, num = choose_gpus(gpus, wanted, prefers_gpu), wanted or 1
    needs = Need({"CPU": 1.0, **({"GPU": gpus} if gpus else {})}, f"num_actors: {num} actors need", "--num-actors")
    wait_for_first(needs, num, "--inference.gpus", say or (lambda text: print(text, flush=True)))
    return share_nodes(_nodes(), wanted, gpus)


def choose_gpus(gpus: float | None, wanted: int | None, prefers_gpu: bool) -> float:
    """GPUs of each process that runs networks; arguments as those of find_actor_resources."""
    if gpus is not None:
        return gpus
    total = sum(node.get("GPU", 0) for node in _nodes())
    if not total:
        return 1.0 if prefers_gpu and can_gain_nodes() else 0.0
    return min(1.0, total / (wanted or 1))


def wait_for_first(need: Need, count: int, gpu_option: str, say: Callable[[str], None]) -> None:
    """Wait until what the first process needs fits on the cluster; where no node can come, refuse what never will.

    Args:
        need: what each process needs.
        count: processes that are wanted at once.
        gpu_option: of the command; with 0 it computes on CPUs.
        say: called with what is waited for.

    Raises:
        ConfigError: it never fits, or no node joined in time.
    """
    on_cpus = f"; {gpu_option} 0 computes on CPUs" if "GPU" in need.bundle else ""
    if not can_gain_nodes():
        if missing := lacking(need.bundle, count):
            raise ConfigError(f"{need.whose} {missing}; lower {need.option}{on_cpus}")
        return

    def too_late(missing: str) -> str:
        return f"{need.whose} {missing}, and in {WAIT_SECONDS:g} s no node joined{on_cpus}"

    if lacking(need.bundle, 1):
        wait_for_bundles(need.bundle, 1, WAIT_SECONDS, lambda text: say(text + on_cpus), too_late)


def _nodes() -> list[Bundle]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


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
