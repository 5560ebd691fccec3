"""How many actors hold a copy of the networks, and on what: by the nodes that can take one, and no others."""

import pytest

from pipelines.runtime.actor_resources import ActorResources, choose_gpus, find_actor_resources, share_nodes
from sr3core.errors import ConfigError

HEAD = {"CPU": 8.0}
EIGHT_GPUS = {"CPU": 96.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "wanted", "gpus", "expected"),
    [
        ([HEAD, EIGHT_GPUS], None, 1.0, ActorResources(8, 12, 1.0)),
        ([{"CPU": 128.0}, *[EIGHT_GPUS] * 8], None, 1.0, ActorResources(64, 12, 1.0)),
        ([{"CPU": 64.0}, {"CPU": 26.0, "GPU": 1.0}], None, 1.0, ActorResources(1, 26, 1.0)),
        ([HEAD, EIGHT_GPUS], 2, 1.0, ActorResources(2, 48, 1.0)),
        ([HEAD, EIGHT_GPUS], None, 0.5, ActorResources(16, 6, 0.5)),
        ([{"CPU": 4.0, "GPU": 8.0}], None, 1.0, ActorResources(4, 1, 1.0)),
        ([HEAD, EIGHT_GPUS], None, 0.0, ActorResources(1, 8, 0.0)),
        ([{"CPU": 2.0}], None, 0.0, ActorResources(1, 2, 0.0)),
        ([{"CPU": 2.0}], 2, 0.0, ActorResources(2, 1, 0.0)),
        ([{"CPU": 0.0}, {"CPU": 16.0}, {"CPU": 16.0}], 4, 0.0, ActorResources(4, 8, 0.0)),
        ([{"CPU": 0.0}], 3, 0.0, ActorResources(3, 1, 0.0)),  # nodes are still to come
    ],
)
def test_actors_share_the_nodes_that_can_take_one(nodes, wanted, gpus, expected):
    found = share_nodes(nodes, wanted, gpus)
    assert found == expected
    assert found.device == ("cuda" if gpus else "cpu")


def test_a_ray_of_its_own_without_gpus_computes_on_cpus_whatever_the_run_was_trained_on(ray_session):
    """It can gain no node, so nothing is waited for."""
    assert find_actor_resources(None, None, prefers_gpu=True) == ActorResources(1, 2, 0.0)
    assert find_actor_resources(2, 0.0, prefers_gpu=True) == ActorResources(2, 1, 0.0)


def test_a_search_takes_no_gpu_where_none_is_and_none_can_come(ray_session):
    assert choose_gpus(None, None, prefers_gpu=True) == 0.0
    assert choose_gpus(0.25, None, prefers_gpu=False) == 0.25


def test_what_a_ray_of_its_own_will_never_have_is_refused_with_what_helps(ray_session):
    with pytest.raises(
        ConfigError, match=r"num_actors: 3 actors need 3 CPU \(the cluster has 2\); lower --num-actors$"
    ):
        find_actor_resources(3, None, prefers_gpu=False)
    with pytest.raises(ConfigError, match=r"1 actors need 1 GPU \(the cluster has 0\).*--inference\.gpus 0"):
        find_actor_resources(None, 1.0, prefers_gpu=False)
