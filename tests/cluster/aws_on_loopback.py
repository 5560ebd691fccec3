"""AWS on loopback: moto's server with this project's roles, and programs that write down what Ray runs on a node."""

import base64
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
from moto.moto_api import recorder
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "cluster" / "policies" / "aws"
REGION, ACCOUNT = "us-west-2", "123456789012"
REPLACEMENTS = {
    "REGISTRY": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com",
    "FILE_SYSTEM": "fs-0123456789abcdef0",
    "ACCOUNT": ACCOUNT,
    "BUCKET": "sr3-data",
}
PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
SSH = """#!/bin/sh
# Writes down what Ray runs on a node, and answers as a machine does on which no container runs yet.
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
    *State.Running*) echo false ;;
    *Config.Env*) echo '["HOME=/home/ray"]' ;;
    *"command -v docker"*) echo /usr/bin/docker ;;
esac
"""


@dataclass(frozen=True)
class Aws:
    """A running server."""

    endpoint: str
    admin: dict[str, str]
    """Environment of one who may do everything."""

    def client(self, service: str, keys: dict[str, str] | None = None, region: str = REGION) -> Any:
        keys = keys or self.admin
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys.get("AWS_SESSION_TOKEN"),
        )

    def tell(self, path: str, body: bytes = b"") -> bytes:
        """Use moto's own API."""
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/{path}", data=body, headers=plain, method="POST")
        with urllib.request.urlopen(request) as response:
            return response.read()

    @contextmanager
    def recorded(self) -> Iterator[list[dict[str, str]]]:
        """The EC2 requests of a block, in order, as their fields."""
        requests: list[dict[str, str]] = []
        self.tell("recorder/reset-recording")
        self.tell("recorder/start-recording")
        yield requests
        self.tell("recorder/stop-recording")
        with urllib.request.urlopen(f"{self.endpoint}/moto-api/recorder/download-recording") as response:
            lines = response.read().decode().splitlines()
        for line in map(json.loads, lines):
            body = line["body"]
            text = base64.b64decode(body).decode() if line.get("body_encoded") else body
            requests.append(dict(urllib.parse.parse_qsl(text)))

    def allow_only_what_policies_say(self) -> None:
        """From now on a request needs its action in its user's or role's policies; moto does not look at conditions."""
        self.tell("reset-auth", b"0")


def policy(name: str) -> dict[str, Any]:
    """A policy of cluster/policies/aws, filled in."""
    return json.loads(fill_in((POLICIES / f"{name}.json").read_text(encoding="utf-8")))


def actions_of(name: str) -> str:
    """A policy as moto can enforce it, which takes every EC2 request as one for the resource `*`: its actions alone."""
    found = policy(name)
    statements = [{**statement, "Resource": "*"} for statement in found["Statement"]]
    return json.dumps({**found, "Statement": statements})


def fill_in(text: str) -> str:
    """Replace the placeholders of a shipped file."""
    for name, value in REPLACEMENTS.items():
        text = text.replace(name, value)
    return text


@contextmanager
def aws_server() -> Iterator[Aws]:
    """Moto's server, which knows the roles, their profiles and the machine image."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with TemporaryDirectory() as folder:
        recorder._location = f"{folder}/recording"  # else the working folder holds it
        yield from _served(server)


def _served(server: ThreadedMotoServer) -> Iterator[Aws]:
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Aws(f"http://{host}:{port}", {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "admin"})
    finally:
        server.stop()


def make_roles(aws: Aws) -> None:
    """What docs/how-to/aws.md does with cluster/policies/aws."""
    iam = aws.client("iam")
    for name in ("head", "worker"):
        iam.create_role(RoleName=f"sr3-{name}", AssumeRolePolicyDocument=json.dumps(policy("trust")))
        iam.put_role_policy(RoleName=f"sr3-{name}", PolicyName="sr3", PolicyDocument=actions_of(name))
        iam.create_instance_profile(InstanceProfileName=f"sr3-{name}")
        iam.add_role_to_instance_profile(InstanceProfileName=f"sr3-{name}", RoleName=f"sr3-{name}")


def make_launcher(aws: Aws) -> dict[str, str]:
    """A user with the launcher's rights: its environment."""
    iam = aws.client("iam")
    iam.create_user(UserName="launcher")
    iam.put_user_policy(UserName="launcher", PolicyName="sr3", PolicyDocument=actions_of("launcher"))
    key = iam.create_access_key(UserName="launcher")["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def keys_of_role(aws: Aws, name: str) -> dict[str, str]:
    """What a node with a role gets from its metadata service."""
    answer = aws.client("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{name}", RoleSessionName="node")
    found = answer["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
        "AWS_SESSION_TOKEN": found["SessionToken"],
    }


def make_image(aws: Aws, days: int = 10) -> str:
    """A machine image of an age, behind the public parameter, which is put into the server: only AWS can write it."""
    from moto.ec2.models import ec2_backends
    from moto.ssm.models import Parameter, ssm_backends

    ec2 = aws.client("ec2")
    instance = ec2.run_instances(MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    image = ec2.create_image(InstanceId=instance, Name="Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04)")
    ec2.terminate_instances(InstanceIds=[instance])
    identifier = image["ImageId"]
    made = datetime.now() - timedelta(days=days)
    ec2_backends[ACCOUNT][REGION].amis[identifier].creation_date = made
    parameter: Any = Parameter(
        account_id=ACCOUNT,
        name=PARAMETER,
        value=identifier,
        parameter_type="String",
        description="",
        allowed_pattern=None,
        keyid=None,
        last_modified_date=made,
        version=1,
        data_type="text",
    )
    ssm_backends[ACCOUNT][REGION]._parameters[PARAMETER] = [parameter]
    return identifier


def ray_up(aws: Aws, keys: dict[str, str], folder: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """`ray up` with the shipped file: how it ended, and what it would have run on the head's machine."""
    launch = folder / "aws.yaml"
    launch.write_text(fill_in((ROOT / "cluster" / "aws.yaml").read_text(encoding="utf-8")))
    (folder / ".ray").mkdir(exist_ok=True)
    (folder / ".ray" / "auth_token").write_text("t" * 64)
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("ssh", "rsync"):
        (programs / name).write_text(SSH)
        (programs / name).chmod(0o755)
    calls = folder / "calls"
    environment = {
        **os.environ,
        **keys,
        "AWS_ENDPOINT_URL": aws.endpoint,
        "HOME": str(folder),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "RAY_DISABLE_PROGRESS_BAR": "1",
    }
    ray = str(Path(sys.executable).with_name("ray"))  # the environment may not be activated
    command = [ray, "up", "--yes", "--no-config-cache", "--disable-usage-stats", str(launch)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done, calls.read_text().splitlines() if calls.exists() else []
