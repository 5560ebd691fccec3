"""Nodes that answer; tests/faults/test_search_faults.py loses one."""

from pipelines.runtime.live_nodes import wait_for_live_nodes


def test_a_cluster_all_of_whose_nodes_run_tasks_is_alive(ray_session):
    assert wait_for_live_nodes()


def test_without_time_for_an_answer_nothing_is_known(ray_session):
    assert not wait_for_live_nodes(seconds=0.0)
