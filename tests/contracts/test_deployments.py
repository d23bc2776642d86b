"""What is shipped to run several servers: each file is whole, and they agree with each other and with the server."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from server.admission.keys import KeyRing, KeysError
from server.settings import Settings
from tests.drills.fronts import CONFIGS, KINDS, REPLICAS, Kind, render

DOCKER = CONFIGS.parent
KUBERNETES = DOCKER / "kubernetes"
KUBERNETES_VERSIONS = ("1.30", "1.37")
"""The oldest that has all that the manifests use, and the newest that the validator knows."""
OTHERS = {"Kustomization", "PodMonitor", "ScaledObject"}
"""Kinds that are not Kubernetes' own: the validator has no schema for them."""
SETTINGS = Settings()


def text(path: str) -> str:
    return (DOCKER / path).read_text(encoding="utf-8")


# ---- Balancers


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_balancer_takes_its_configuration(kind: Kind, tmp_path: Path) -> None:
    program = kind.program()
    if program is None:
        pytest.skip(f"{kind.name} is not installed")
    tmp_path.chmod(0o755)
    config = tmp_path / kind.config
    config.write_text(render(kind, [9001, 9002, 9003], 9000, tmp_path), encoding="utf-8")
    check = {
        "nginx": ["-t", "-c", str(config), "-p", str(tmp_path), "-e", "stderr"],
        "haproxy": ["-c", "-f", str(config)],
        "envoy": ["--mode", "validate", "-c", str(config)],
    }[kind.name]
    done = subprocess.run([program, *check], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\bwarn", done.stderr, re.IGNORECASE), done.stderr


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_only_addresses_are_replaced_for_the_drills(kind: Kind, tmp_path: Path) -> None:
    shipped = text(f"balancers/{kind.config}").splitlines()
    rendered = render(kind, [9001, 9002, 9003], 9000, tmp_path).splitlines()
    assert len(shipped) == len(rendered)
    changed = [
        old for old, new in zip(shipped, rendered, strict=True) if old != new and not old.lstrip().startswith("#")
    ]
    assert changed
    assert all(re.search(r"ain-[123]\b|8080|/tmp/", old) for old in changed)


def test_every_balancer_takes_bodies_as_large_as_the_server_does() -> None:
    mib = SETTINGS.max_body_mib
    assert f"client_max_body_size {mib}m;" in text("balancers/nginx.conf")
    envoy = text("balancers/envoy.yaml")
    assert f"max_request_bytes: {mib << 20} " in envoy
    assert f"request_body_buffer_limit: {mib << 20} " in envoy


def test_no_balancer_keeps_a_connection_longer_than_the_server_does() -> None:
    nginx, envoy = text("balancers/nginx.conf"), text("balancers/envoy.yaml")
    to_the_server = re.search(r"upstream by_load \{.*?keepalive_timeout (\d+)s;", nginx, re.DOTALL)
    assert to_the_server
    assert int(to_the_server[1]) < SETTINGS.keep_alive_s
    cluster = envoy.partition("\n  clusters:")[2]
    to_the_server = re.search(r"idle_timeout: (\d+)s", cluster)
    assert to_the_server
    assert int(to_the_server[1]) < SETTINGS.keep_alive_s


def test_a_balancer_has_as_many_replicas_as_there_are() -> None:
    services = yaml.safe_load(text("compose.replicas.yaml"))["services"]
    names = {name for name in services if name.startswith("ain-")}
    assert names == {f"ain-{number}" for number in range(1, REPLICAS + 1)}
    for kind in KINDS:
        assert set(re.findall(r"\bain-\d\b", text(f"balancers/{kind.config}"))) == names
    addresses = [service["networks"]["replicas"]["ipv4_address"] for name, service in services.items() if name in names]
    assert len(set(addresses)) == REPLICAS


# ---- Kubernetes


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if "kind" in document:
                yield str(path.relative_to(KUBERNETES)), document


def the(kind: str) -> dict[str, Any]:
    [found] = [document for _, document in manifests() if document["kind"] == kind]
    return found


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize(
    "manifest",
    [pytest.param(one, id=f"{file}-{one['kind']}") for file, one in manifests() if one["kind"] not in OTHERS],
)
def test_a_manifest_is_what_kubernetes_takes(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validator_sees_a_wrong_field() -> None:
    wrong = {**the("PodDisruptionBudget"), "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSIONS[-1], strict=True)


def test_every_manifest_is_named_by_a_kustomization() -> None:
    for folder in {path.parent for path in KUBERNETES.rglob("kustomization.yaml")}:
        named = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
        assert all((folder / name).exists() for name in named)
        there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml", "adapter-values.yaml"}
        assert there == {name for name in named if name.endswith(".yaml")}


@pytest.mark.parametrize("folder", [".", "base", "keda"])
def test_kustomize_puts_them_together(folder: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    [deployment] = [one for one in documents if one["kind"] == "Deployment"]
    assert ("replicas" in deployment["spec"]) == (folder == "base"), "an autoscaler's number is undone by each apply"
    for one in documents:
        if one["kind"] not in OTHERS:
            kubernetes_validate.validate(one, KUBERNETES_VERSIONS[-1], strict=True)


def test_a_pod_has_time_to_drain() -> None:
    pod = the("Deployment")["spec"]["template"]["spec"]
    [server] = pod["containers"]
    pause = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(environment(server)["AIN_DRAIN_TIMEOUT_S"])
    assert pause + drain + 10 <= pod["terminationGracePeriodSeconds"]


def test_a_pod_takes_settings_that_the_server_has() -> None:
    [server] = the("Deployment")["spec"]["template"]["spec"]["containers"]
    ours = {name.removeprefix("AIN_").lower() for name in environment(server) if name.startswith("AIN_")}
    assert ours <= set(Settings.model_fields)
    assert the("Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False, "else AIN_PORT may be taken"


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container["env"]}


def test_labels_meet() -> None:
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [the("Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [the("PodMonitor")["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for _, one in manifests() if one["kind"] == "Service"]
    assert all(selector.items() <= labels for selector in selectors)


def test_the_keys_that_are_shipped_open_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(the("Secret")["stringData"]["api-keys"], encoding="utf-8")
    with pytest.raises(KeysError):
        KeyRing([], keys)


def test_both_autoscalers_want_the_same() -> None:
    hpa, keda = the("HorizontalPodAutoscaler")["spec"], the("ScaledObject")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert hpa["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    queries = " ".join(trigger["metadata"]["query"] for trigger in keda["triggers"])
    rules = text("kubernetes/adapter-values.yaml")
    for metric in ("ain_requests_waiting", "ain_requests_refused_total"):
        assert metric in queries
        assert metric in rules


# ---- systemd


def test_the_unit_gives_the_server_time_to_drain() -> None:
    unit = text("systemd/ain-server.service")
    drain = re.search(r"AIN_DRAIN_TIMEOUT_S=(\d+)", unit)
    stop = re.search(r"TimeoutStopSec=(\d+)", unit)
    assert drain
    assert stop
    assert int(drain[1]) + 10 <= int(stop[1])
    assert "KillMode=mixed" in unit, "SIGTERM to all processes would end the engine before the requests"
    ours = {name.lower() for name in re.findall(r"\bAIN_([A-Z_]+)=", unit.partition("[Service]")[2])}
    assert ours <= set(Settings.model_fields)
