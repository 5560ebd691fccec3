"""cluster/aws.yaml and gcp.yaml, checked by Ray's own code and by the clouds' own shapes, without a cloud."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.aws.config import DEFAULT_AMI
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
CLOUDS = ("aws", "gcp")
GCP_KEYS = {"machineType", "disks", "metadata", "serviceAccounts", "scheduling"}
"""Fields of a Compute Engine instance that gcp.yaml uses."""


def load(cloud: str) -> dict:
    return yaml.safe_load((CLUSTER / f"{cloud}.yaml").read_text())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_itself_accepts_the_file(cloud):
    config = prepare_config(load(cloud))
    validate_config(config)
    assert config["setup_commands"] == [], "nothing is installed when a node starts; the image has it"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_rays_check_would_find_a_mistake(cloud):
    with pytest.raises(Exception, match="idle_timeout_minuts"):
        validate_config(prepare_config({**load(cloud), "idle_timeout_minuts": 5}))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_head_stays_and_the_workers_come_and_go(cloud):
    config = load(cloud)
    types = config["available_node_types"]
    head, cpu, gpu = types["head"], types["cpu"], types["gpu"]
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}, "a full head is a dead cluster"
    spot = "InstanceMarketOptions" if cloud == "aws" else "scheduling"
    assert spot not in head["node_config"]
    assert cpu["node_config"][spot].items() <= gpu["node_config"][spot].items()
    assert config["idle_timeout_minutes"] > 0
    assert cpu["max_workers"] + gpu["max_workers"] <= config["max_workers"]
    assert {cpu["min_workers"], gpu["min_workers"]} == {0}
    assert gpu["resources"]["GPU"] == 8
    assert "-cuda" in gpu["docker"]["worker_image"]


def test_every_aws_field_is_one_of_ec2s():
    """botocore carries EC2's own description of RunInstances."""
    import botocore.session
    from botocore.validate import ParamValidator

    session = botocore.session.get_session()
    shape = session.get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, node_type in load("aws")["available_node_types"].items():
        report = ParamValidator().validate({**node_type["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_every_gcp_field_is_one_we_know():
    for name, node_type in load("gcp")["available_node_types"].items():
        assert node_type["node_config"].keys() <= GCP_KEYS, name


def test_the_machine_images_are_found_when_a_node_starts_or_pinned():
    """Ray's own default for AWS is an Ubuntu of 2018, without a driver for a p5."""
    aws, gcp = load("aws"), load("gcp")
    images = {node_type["node_config"]["ImageId"] for node_type in aws["available_node_types"].values()}
    (image,) = images
    assert image.startswith("resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-")
    assert image not in DEFAULT_AMI.values()
    for node_type in gcp["available_node_types"].values():
        for disk in node_type["node_config"]["disks"]:
            assert "/family/" not in disk["initializeParams"]["sourceImage"]


def test_only_the_head_may_start_nodes():
    """Every job runs on the workers: with the head's role it could start machines, or give them any role."""
    types = load("aws")["available_node_types"]
    profiles = {
        name: node["node_config"]["IamInstanceProfile"]["Arn"].rpartition("/")[2] for name, node in types.items()
    }
    assert profiles == {"head": "sr3-head", "cpu": "sr3-worker", "gpu": "sr3-worker"}
    worker, head = (actions(name) for name in ("worker", "head"))
    assert not {action for action in worker if action.startswith(("ec2:", "iam:", "ssm:"))}
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "iam:PassRole"} <= head
    assert not any("*" in action for action in worker | head | actions("launcher"))


def statements(name: str) -> list[dict]:
    return json.loads((CLUSTER / "policies" / "aws" / f"{name}.json").read_text())["Statement"]


def actions(name: str) -> set[str]:
    found = [statement["Action"] for statement in statements(name)]
    return {action for each in found for action in ([each] if isinstance(each, str) else each)}


@pytest.mark.parametrize("name", ["head", "launcher"])
def test_rights_to_end_nodes_and_to_pass_roles_are_narrow(name):
    for statement in statements(name):
        if "ec2:TerminateInstances" in statement["Action"]:
            assert statement["Condition"]["StringEquals"] == {"ec2:ResourceTag/ray-cluster-name": "sr3"}
        if statement["Action"] == "iam:PassRole":
            assert [arn.rpartition("/")[2] for arn in statement["Resource"]] == [
                {"head": "sr3-worker", "launcher": "sr3-head"}[name]
            ]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_shared_folder_is_mounted_and_belongs_to_the_containers_user(cloud):
    """The container's user is 1000, and root mounts."""
    commands = load(cloud)["initialization_commands"]
    mount = next(i for i, command in enumerate(commands) if " mount -t nfs" in command)
    assert any("nfs-common" in command for command in commands[:mount])
    assert any("chown 1000:1000 /shared" in command for command in commands[mount:])
    assert any("docker login" in command or "configure-docker" in command for command in commands)
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nothing_is_open_and_no_secret_is_in_the_file(cloud):
    config = load(cloud)
    text = (CLUSTER / f"{cloud}.yaml").read_text()
    (start,) = (command for command in config["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-host=127.0.0.1" in start
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    for word in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN=", "PRIVATE KEY"):
        assert word not in text
    assert ":latest" not in text
