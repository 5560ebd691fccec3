"""cluster/aws.yaml and gcp.yaml, checked by Ray's own code and by the clouds' own shapes, without a cloud."""

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.aws.config import DEFAULT_AMI
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
CLOUDS = ("aws", "gcp")
GCP_KEYS = {"machineType", "disks", "serviceAccounts", "scheduling"}
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
    assert cpu["node_config"][spot] == gpu["node_config"][spot]
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


def test_the_machine_images_are_pinned():
    aws, gcp = load("aws"), load("gcp")
    for node_type in aws["available_node_types"].values():
        assert node_type["node_config"]["ImageId"] == DEFAULT_AMI[aws["provider"]["region"]]
    for node_type in gcp["available_node_types"].values():
        for disk in node_type["node_config"]["disks"]:
            assert "/family/" not in disk["initializeParams"]["sourceImage"]


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
