"""`sr3 doctor --launch`: what is named before a node starts, from the file alone."""

import re
from pathlib import Path

import pytest
import yaml

from cluster.cli import main
from cluster.health.launch_files import PLACEHOLDERS, check_google, examine_launch, placeholders
from sr3core.errors import DataError

CLUSTER = Path(__file__).resolve().parents[3] / "cluster"
SHIPPED = [CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml", *(CLUSTER / "kuberay").rglob("*.yaml")]
WORDS_OF_OTHERS = {"ALL", "CPU", "GPU", "HTTP", "PERSISTENT", "POD", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "TERMINATE"}
WORDS_OF_OTHERS |= {"AWS", "FAILED", "HOME", "IP", "RAY_AUTH_TOKEN_PATH", "RAY_HEAD_IP", "SUCCEEDED", "TCP", "UTC"}


def test_every_word_in_capitals_of_the_shipped_files_is_a_known_placeholder_or_a_name():
    found = set()
    for path in SHIPPED:
        for line in path.read_text(encoding="utf-8").splitlines():
            found |= set(re.findall(r"\b[A-Z][A-Z_]+\b", re.sub(r"(^|\s)#.*", "", line)))
    assert found - WORDS_OF_OTHERS == set(PLACEHOLDERS)


def test_what_is_left_to_replace_is_named_with_its_lines():
    text = "image: REGISTRY/sr3\n# a comment about BUCKET\nrole: arn:aws:iam::ACCOUNT:x\nother: MY_ACCOUNT_ID # IMAGE\n"
    assert placeholders(text) == {"REGISTRY": [1], "ACCOUNT": [3]}


def test_the_shipped_manifests_fail_for_nothing_but_their_placeholders(capsys):
    assert main(["doctor", "--launch", str(CLUSTER / "kuberay")]) == 1
    output = capsys.readouterr().out
    assert "SHARED_STORAGE_CLASS in line" in output
    assert "replace them by your own" in output


def filled(tmp_path: Path, **changes: str) -> dict:
    text = (CLUSTER / "gcp.yaml").read_text(encoding="utf-8")
    for name, value in {"FILESTORE_ADDRESS": "10.0.0.2", "IMAGE": "image", "PROJECT": "p", "REGISTRY": "r"}.items():
        text = text.replace(name, value)
    for old, new in changes.items():
        text = text.replace(old.replace("_", "-"), new)
    return yaml.safe_load(text)


def test_a_missing_token_is_found_before_it_is_copied(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "gcp.yaml"
    file.write_text(yaml.safe_dump(filled(tmp_path)))
    assert main(["doctor", "--launch", str(file)]) == 1
    output = capsys.readouterr().out
    assert (
        "~/.ray/auth_token, which is copied to the nodes, is missing or empty: `ray get-auth-token --generate" in output
    )
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    assert main(["doctor", "--launch", str(file)]) == 0


def test_a_disk_that_google_refuses_and_a_zone_of_another_region_are_named(tmp_path):
    config = filled(tmp_path)
    assert {check.name for check in check_google(config)} == {"machine"}, "Google itself is not asked, and that is said"
    config["provider"]["region"] = "europe-west4"
    for disk in config["available_node_types"]["gpu"]["node_config"]["disks"]:
        del disk["initializeParams"]["diskType"]
    found = {check.name: check for check in check_google(config)}
    assert found["zone"].text == "us-central1-a is not in europe-west4"
    assert found["disk"].text == "gpu: a3-highgpu-8g has no pd-standard disks"


def test_a_file_that_is_none_is_said_to_be(tmp_path, capsys):
    assert main(["doctor", "--launch", str(tmp_path / "no.yaml")]) == 1
    assert "no launch file" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("a: [")
    assert main(["doctor", "--launch", str(tmp_path / "bad.yaml")]) == 1
    assert "bad.yaml: not YAML" in capsys.readouterr().err


def test_a_sound_manifest_passes(tmp_path):
    (tmp_path / "one.yaml").write_text("kind: Service\n")
    ((check,),) = examine_launch(str(tmp_path), ()).values()
    assert check.state == "ok"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a file of `ray up`"),
        (b"- a", "neither a file of `ray up`"),
        (b"---\n", "not a valid file of `ray up`"),
        (b"[1,2", "not YAML"),
        (b"\xff\xfe", "not text"),
        (b"provider: aws", "not a valid file of `ray up`"),
        (b"provider: {type: aws}", "it lacks 'region'"),
    ],
)
def test_what_is_no_launch_file_is_named(tmp_path, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(DataError, match=message):
        examine_launch(str(tmp_path / "a.yaml"), ())
    with pytest.raises(DataError, match="must be on this machine"):
        examine_launch("s3://bucket/a.yaml", ())
