"""What NetworkPolicies mean, by Kubernetes' rules: who may connect to whom, for ingress within one cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NAMESPACE_NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "default"


def admits(policies: Sequence[dict[str, Any]], source: Pod, target: Pod, port: int, namespace: str = "default") -> bool:
    """Whether a TCP connection is let in. A pod that no policy selects takes every connection.

    Args:
        policies: NetworkPolicy objects, all in one namespace.
        source: who connects.
        target: to whom.
        port: of the target's container.
        namespace: of the policies.
    """
    selecting = [policy["spec"] for policy in policies if _guards(policy["spec"], target, namespace)]
    return not selecting or any(
        _lets_in(rule, source, port, namespace) for spec in selecting for rule in spec.get("ingress", ())
    )


def _guards(spec: dict[str, Any], target: Pod, namespace: str) -> bool:
    types = spec.get("policyTypes", ["Ingress"])
    return "Ingress" in types and target.namespace == namespace and selects(spec["podSelector"], target.labels)


def _lets_in(rule: dict[str, Any], source: Pod, port: int, namespace: str) -> bool:
    """A rule without peers admits everyone, one without ports every port."""
    peers, ports = rule.get("from"), rule.get("ports")
    fits = not ports or any(_is_port(entry, port) for entry in ports)
    return fits and (not peers or any(_is_peer(peer, source, namespace) for peer in peers))


def _is_port(entry: dict[str, Any], port: int) -> bool:
    if entry.get("protocol", "TCP") != "TCP":
        return False
    first = entry.get("port")
    return first is None or first <= port <= entry.get("endPort", first)


def _is_peer(peer: dict[str, Any], source: Pod, namespace: str) -> bool:
    """Selectors of one peer hold together; without one for namespaces it is the policy's own."""
    if "ipBlock" in peer:
        raise NotImplementedError("addresses")
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {NAMESPACE_NAME: source.namespace}):
            return False
    elif source.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), source.labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector selects; an empty one selects everything."""
    same = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return same and all(_holds(expression, labels) for expression in selector.get("matchExpressions", ()))


def _holds(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]
