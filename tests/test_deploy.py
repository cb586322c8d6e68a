"""The Kubernetes manifest, held against Kubernetes' own schema, our command line and our images."""

from copy import deepcopy
from typing import Any

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


def test_its_arguments_are_our_command_lines() -> None:
    command, *arguments = CONTAINER["args"]
    group: Any = typer.main.get_command(app)
    context = group.commands[command].make_context(command, list(arguments))
    assert context.params["runner"] == "local"
    mounted = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    for name in ("matrix", "results", "artifacts"):
        assert any(str(context.params[name]).startswith(f"{place}/") for place in mounted)


def test_it_is_as_closed_as_a_container_of_ours() -> None:
    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]) == (UID, GID)
    assert POD["securityContext"]["runAsNonRoot"] and not POD["automountServiceAccountToken"]
    own = CONTAINER["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    sizes = [volume["emptyDir"].get("sizeLimit") for volume in POD["volumes"] if "emptyDir" in volume]
    assert f"{SHM_BYTES >> 30}Gi" in sizes


def test_every_mount_has_its_volume() -> None:
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
