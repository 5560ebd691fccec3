"""What AWS says about a launch file before a node starts: its machines, its machine image, its buckets, its clock."""

import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from cluster.health.checks import Check
from cluster.health.doctor import check_skew

SSM = "resolve:ssm:"
"""How EC2 is told to look up a machine image by the name of a parameter."""
OLD_IMAGE_DAYS = 180
"""Beyond it security updates and drivers are missing; AWS's own images come every few weeks."""


def ask_aws(config: dict[str, Any], buckets: tuple[str, ...]) -> Iterator[Check]:
    """Ask AWS with the launcher's rights (cluster/policies/aws/launcher.json).

    Args:
        config: a file of `ray up`.
        buckets: s3:// locations that the cluster is to use.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    region = config["provider"]["region"]
    session = boto3.Session(region_name=region)
    try:
        yield check_clock_of_aws(session)
        yield from check_machines(session, config)
        yield from check_images(session, config)
        for bucket in buckets:
            yield check_region(session, bucket, region)
    except (BotoCoreError, ClientError) as error:
        remedy = "log in (`aws sts get-caller-identity`) as one with the rights of cluster/policies/aws/launcher.json"
        yield Check("AWS", "fail", f"not asked further: {error}", remedy)


def check_clock_of_aws(session: Any) -> Check:
    """This machine's clock against AWS's, which refuses requests that are signed for another time."""
    sent = time.time()
    answer = session.client("ec2").describe_availability_zones()
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    theirs = parsedate_to_datetime(headers["date"]).timestamp()  # of whole seconds
    found = check_skew(theirs + 0.5, sent - 0.5, time.time() + 0.5)
    return Check("clock", found.state, found.text.replace("the driver's", "AWS's"), found.remedy)


def check_machines(session: Any, config: dict[str, Any]) -> Iterator[Check]:
    """Whether each type of machine is offered in a zone of the file."""
    provider = config["provider"]
    zones = [zone.strip() for zone in provider.get("availability_zone", "").split(",") if zone.strip()]
    for name, node_type in config["available_node_types"].items():
        machine = node_type["node_config"]["InstanceType"]
        filters = [{"Name": "instance-type", "Values": [machine]}]
        pages = session.client("ec2").get_paginator("describe_instance_type_offerings")
        offered = [
            offer["Location"]
            for page in pages.paginate(LocationType="availability-zone", Filters=filters)
            for offer in page["InstanceTypeOfferings"]
        ]
        there = sorted(set(offered) & set(zones)) if zones else sorted(offered)
        if there:
            yield Check("machine", "ok", f"{name}: {machine} in {', '.join(there)}")
        else:
            where = f"{provider['region']} has it in {', '.join(sorted(offered))}" if offered else "another region"
            text = f"{name}: {machine} is not offered in {', '.join(zones) or provider['region']}"
            yield Check("machine", "fail", text, f"take another machine, or zone: {where}")


def check_images(session: Any, config: dict[str, Any]) -> Iterator[Check]:
    """Whether each machine image is there, and how old it is."""
    for image in sorted({node["node_config"]["ImageId"] for node in config["available_node_types"].values()}):
        found = image
        if image.startswith(SSM):
            parameter = session.client("ssm").get_parameter(Name=image.removeprefix(SSM))
            found = parameter["Parameter"]["Value"]
        images = session.client("ec2").describe_images(ImageIds=[found])["Images"]
        yield _check_age(images[0]) if images else Check("image", "fail", f"{found} is gone", "name another ImageId")


def _check_age(image: dict[str, Any]) -> Check:
    made = datetime.fromisoformat(image["CreationDate"])
    days = (datetime.now(made.tzinfo) - made).days
    text = f"{image['ImageId']}, {image.get('Name', 'without a name')}, {days} days old"
    if days <= OLD_IMAGE_DAYS:
        return Check("image", "ok", text)
    return Check("image", "warn", text, f"take the newest: ImageId {SSM}…/latest/ami-id, as in cluster/aws.yaml")


def check_region(session: Any, location: str, region: str) -> Check:
    """Whether a bucket is in the cluster's region; traffic between regions is billed, and slow."""
    bucket = location.removeprefix("s3://").partition("/")[0].partition("?")[0]
    answer = session.client("s3").head_bucket(Bucket=bucket)
    there = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", region)
    if there == region:
        return Check("bucket", "ok", f"{bucket} is in {region}")
    text = f"{bucket} is in {there}, the cluster in {region}"
    return Check("bucket", "fail", text, "use a bucket in the cluster's region: each byte between regions is billed")
