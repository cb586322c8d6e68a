"""The Kubernetes manifests, held against Kubernetes' own schema, our command line and our images.

KubeRay's schema is in no package, and too large to keep here. So a RayJob's pods are held against that of Kubernetes,
and what is around them against RAY_JOB: the fields that we use as KubeRay 1.7 defines them, and no others.
"""

from copy import deepcopy
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from harness.cli import app
from harness.containers.in_docker import SHM_BYTES
from harness.containers.ownership import GID, UID
from tests.documents import ROOT

KUBERNETES = "1.31"
JOB: dict[str, Any] = yaml.safe_load((ROOT / "deploy/train-job.yaml").read_text(encoding="utf-8"))
RAY: dict[str, Any] = yaml.safe_load((ROOT / "deploy/ray-job.yaml").read_text(encoding="utf-8"))
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def validate(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_job_fits_the_schema() -> None:
    validate(JOB)


@pytest.mark.parametrize(("place", "value"), [("restartPolicy", 3), ("securityContexts", {}), ("containers", "train")])
def test_the_schema_would_notice(place: str, value: Any) -> None:
    broken = deepcopy(JOB)
    broken["spec"]["template"]["spec"][place] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(broken)


CLUSTER = RAY["spec"]["rayClusterSpec"]
HEAD, (WORKERS,) = CLUSTER["headGroupSpec"], CLUSTER["workerGroupSpecs"]
PODS = {
    "job": POD,
    "head": HEAD["template"]["spec"],
    "workers": WORKERS["template"]["spec"],
}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}


def fields(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


GROUP = {"rayStartParams": TEXTS, "template": {"type": "object"}}
RAY_JOB = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(["name"], name={"type": "string"}, labels=TEXTS),
    spec=fields(
        ["entrypoint", "rayClusterSpec"],
        entrypoint={"type": "string"},
        backoffLimit=COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=fields(
            ["headGroupSpec"],
            rayVersion={"type": "string"},
            headGroupSpec=fields(["template"], **GROUP),
            workerGroupSpecs={
                "type": "array",
                "items": fields(
                    ["groupName", "minReplicas", "maxReplicas", "template"],
                    groupName={"type": "string"},
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    **GROUP,
                ),
            },
        ),
    ),
)


@pytest.mark.parametrize("group", ["head", "workers"])
def test_the_pods_of_the_ray_job_fit_the_schema(group: str) -> None:
    template = {"head": HEAD, "workers": WORKERS}[group]["template"]
    metadata = {"name": group, **template["metadata"]}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})


def test_the_ray_job_fits_the_schema() -> None:
    jsonschema.validate(RAY, RAY_JOB)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "entrypoint"), ["train-matrix"]),
        (("spec", "backofLimit"), 3),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "groupName"), "head"),
    ],
)
def test_the_schema_of_the_ray_job_would_notice(place: tuple[str, ...], value: Any) -> None:
    broken = deepcopy(RAY)
    inner = broken
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, RAY_JOB)


def test_the_ray_job_is_of_the_ray_that_is_pinned() -> None:
    assert f"\nray=={CLUSTER['rayVersion']} \\\n" in (ROOT / "requirements/ray.txt").read_text(encoding="utf-8")


ARGUMENTS = {"job": CONTAINER["args"], "head": RAY["spec"]["entrypoint"].split()[3:]}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_its_arguments_are_our_command_lines(name: str) -> None:
    command, *arguments = ARGUMENTS[name]
    (container,) = PODS[name]["containers"]
    group: Any = typer.main.get_command(app)
    context = group.commands[command].make_context(command, list(arguments))
    assert context.params["runner"] == "local" or context.params["executor"] == "ray"
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    for option in ("matrix", "results", "artifacts"):
        assert any(str(context.params[option]).startswith(f"{place}/") for place in mounted)


def test_every_node_of_the_ray_cluster_sees_the_store_and_the_head_trains_nothing() -> None:
    for group in ("head", "workers"):
        (container,) = PODS[group]["containers"]
        assert {"name": "work", "mountPath": "/srv"} in container["volumeMounts"]
    assert RAY["spec"]["entrypoint"].startswith("python -m harness train-matrix ")
    assert HEAD["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}


@pytest.mark.parametrize("name", PODS)
def test_it_is_as_closed_as_a_container_of_ours(name: str) -> None:
    pod = PODS[name]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (UID, GID)
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    (container,) = pod["containers"]
    own = container["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    sizes = [volume["emptyDir"].get("sizeLimit") for volume in pod["volumes"] if "emptyDir" in volume]
    assert f"{SHM_BYTES >> 30}Gi" in sizes


@pytest.mark.parametrize("name", PODS)
def test_every_mount_has_its_volume(name: str) -> None:
    (container,) = PODS[name]["containers"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in PODS[name]["volumes"]}
