"""`ray up cluster/aws.yaml` against EC2 and IAM on loopback, with the rights of cluster/policies/aws and no others.

Moto enforces the actions of policies, not their resources and conditions. No machine starts: programs in place of ssh
and rsync write down what Ray would run on one. So what is tested are the requests and the commands that Ray sends.
"""

from collections.abc import Iterator

import pytest
import yaml
from botocore.exceptions import ClientError

from cluster.health.aws import ask_aws
from cluster.health.checks import Check
from tests.cluster.aws_on_loopback import (
    ROOT,
    Aws,
    aws_server,
    fill_in,
    keys_of_role,
    make_image,
    make_launcher,
    make_roles,
    ray_up,
)

COMMAND_OUTPUTS = ("Checking AWS environment settings", "Acquiring an up-to-date head node")
FILE = (ROOT / "cluster" / "aws.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def aws() -> Iterator[tuple[Aws, dict[str, str]]]:
    """The server, and the launcher's keys."""
    with aws_server() as server:
        make_roles(server)
        launcher = make_launcher(server)
        for bucket, region in (("sr3-data", "us-west-2"), ("elsewhere", "eu-west-1")):
            place = {"LocationConstraint": region}
            server.client("s3", region=region).create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
        yield server, launcher


@pytest.fixture
def as_launcher(aws: tuple[Aws, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Aws:
    server, keys = aws
    for name, value in {**keys, "AWS_ENDPOINT_URL": server.endpoint}.items():
        monkeypatch.setenv(name, value)
    return server


def asked(changes: dict[str, str], *buckets: str) -> dict[str, list[Check]]:
    text = fill_in(FILE)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    found: dict[str, list[Check]] = {}
    for check in ask_aws(yaml.safe_load(text), buckets):
        found.setdefault(check.name, []).append(check)
    return found


def test_the_shipped_file_passes_what_aws_can_be_asked(as_launcher):
    make_image(as_launcher)
    found = asked({"p5.48xlarge": "p4d.24xlarge", "m7i.": "m5."}, "s3://sr3-data/shards")  # moto knows no newer ones
    assert {check.state for checks in found.values() for check in checks} == {"ok"}, found
    assert found.keys() == {"clock", "machine", "image", "bucket"}
    assert "10 days old" in found["image"][0].text


def test_what_would_cost_money_or_fail_is_named_before_it_does(as_launcher):
    make_image(as_launcher, days=400)
    found = asked({"InstanceType: m7i.2xlarge": "InstanceType: m7i.never"}, "s3://elsewhere/shards?endpoint_override=x")
    machine = found["machine"][0]
    assert (machine.state, machine.text.partition(" is not")[0]) == ("fail", "head: m7i.never")
    assert (found["image"][0].state, "400 days old" in found["image"][0].text) == ("warn", True)
    assert (
        found["bucket"][0].line().startswith("fail  bucket        elsewhere is in eu-west-1, the cluster in us-west-2")
    )


def test_who_is_not_logged_in_is_told_which_rights_are_needed(as_launcher, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (check,) = asked({})["AWS"]
    assert check.state == "fail"
    assert "cluster/policies/aws/launcher.json" in check.remedy


def test_ray_up_sends_what_it_may_and_prepares_the_node(aws, tmp_path):
    """Last of the file: from here on the server refuses what the policies do not allow."""
    server, launcher = aws
    make_image(server)
    head, worker = keys_of_role(server, "sr3-head"), keys_of_role(server, "sr3-worker")
    server.allow_only_what_policies_say()
    with server.recorded() as requests:
        done, calls = ray_up(server, launcher, tmp_path)
    assert "AccessDenied" not in done.stdout, done.stdout
    assert all(text in done.stdout for text in COMMAND_OUTPUTS), done.stdout + done.stderr
    check_requests(requests)
    check_commands(calls)
    with pytest.raises(ClientError, match="not authorized to perform: ec2:RunInstances"):
        server.client("ec2", worker).run_instances(MinCount=1, MaxCount=1)
    (node,) = server.client("ec2", head).run_instances(MinCount=1, MaxCount=1)["Instances"]
    server.client("ec2", head).terminate_instances(InstanceIds=[node["InstanceId"]])
    with pytest.raises(ClientError, match="not authorized"):
        server.client("iam", head).create_user(UserName="somebody")


def check_requests(requests: list[dict[str, str]]) -> None:
    (run,) = [request for request in requests if request.get("Action") == "RunInstances"]
    config = yaml.safe_load(fill_in(FILE))["available_node_types"]["head"]["node_config"]
    assert run["ImageId"] == config["ImageId"]
    assert run["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/ami/")
    assert run["IamInstanceProfile.Arn"].endswith("instance-profile/sr3-head")
    assert run["MetadataOptions.HttpTokens"] == "required"
    assert run["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
    assert "InstanceMarketOptions.MarketType" not in run, "the head is on demand"
    (firewall,) = [request for request in requests if request.get("Action") == "AuthorizeSecurityGroupIngress"]
    ports = {name: value for name, value in firewall.items() if name.endswith("FromPort")}
    assert ports == {"IpPermissions.1.FromPort": "-1", "IpPermissions.2.FromPort": "22"}, "the group itself, and SSH"
    assert "IpPermissions.1.IpRanges.1.CidrIp" not in firewall


def check_commands(calls: list[str]) -> None:
    """In order: a shared disk that the container's user may write to, the registry's login, the container."""
    wanted = (
        "/.ray/auth_token ubuntu@",
        "install --yes nfs-common",
        "mount -t nfs4",
        "chown 1000:1000 /shared",
        "docker login --username AWS --password-stdin 123456789012.dkr.ecr.us-west-2.amazonaws.com",
        "docker pull 123456789012.dkr.ecr.us-west-2.amazonaws.com/sr3:0.1.0-cpu",
        "docker run",
        "ray start --head",
    )
    places = [next((i for i, call in enumerate(calls) if text in call), None) for text in wanted]
    assert None not in places, dict(zip(wanted, places, strict=True))
    assert places == sorted(places)  # type: ignore[type-var]
    (start,) = [call for call in calls if "docker run" in call]
    for option in ("--volume /shared:/shared", "--env RAY_AUTH_MODE=token", "--security-opt no-new-privileges"):
        assert option in start
    assert not any("t" * 64 in call for call in calls), "the token is in no command"
