"""The files for engines are valid, name settings that there are, and give servers the time that they need to stop."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from compose_spec import PyCompose

from progress_service import config
from tests.deploy import DEPLOY, secrets

FILES = {str(path.relative_to(DEPLOY)): path for path in DEPLOY.rglob("*") if path.is_file()}
MANIFESTS = [
    manifest
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
]
COMPOSE = yaml.safe_load(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", (DEPLOY / "compose.yaml").read_text()))


def whole(name: str) -> int:
    """Return the default of a setting that is a whole number."""
    setting = config.DEFAULTS[name]
    assert isinstance(setting, config.Whole)
    return setting.default


def pods() -> dict[str, Any]:
    """Return what the pods of each deployment and job are."""
    found = {}
    for one in MANIFESTS:
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one.get("spec", {})
        if "template" in spec:
            found[one["metadata"]["name"]] = spec["template"]["spec"]
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_setting_that_a_file_names_exists(name: str) -> None:
    named = set(re.findall(r"\bPROGRESS_[A-Z_]+\b", FILES[name].read_text()))

    known = {f"PROGRESS_{name}" for name in [*config.DEFAULTS, *config.KEYS, "JWT_ALGORITHM"]}
    assert named - known - {f"PROGRESS_{name}_FILE" for name in config.FROM_FILES} == set()


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda one: f"{one['kind']} {one.get('metadata', {}).get('name', '')}"
)
def test_every_manifest_fits_the_schema_of_kubernetes(manifest: dict[str, Any]) -> None:
    if manifest["kind"] == "Kustomization":  # which kubectl reads, and the cluster does not
        assert set(manifest["resources"]) == {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {
            "kustomization.yaml"
        }
    else:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_every_pod_has_few_rights_and_gets_no_variables_of_other_services() -> None:
    assert set(pods()) == {"progress", "progress-deliverer", "progress-migration", "progress-verification"}
    for pod in pods().values():
        (container,) = pod["containers"]
        assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_container_but_the_database_has_few_rights() -> None:
    for name, service in COMPOSE["services"].items():
        if name != "postgres":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_the_lines_for_replicas_are_valid_and_give_the_service_the_file_that_they_name() -> None:
    text = (DEPLOY / "kubernetes" / "service.yaml").read_text()
    deployment, *_ = yaml.safe_load_all(text.replace("# - {", "- {"))
    kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)

    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (uri,) = [one["value"] for one in container["env"] if one["name"] == "PROGRESS_SQLALCHEMY_REPLICA_URI_FILE"]
    (mounted,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "secrets"]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert uri in {f"{mounted}/{one['path']}" for one in secret["items"]}


def test_only_migrations_get_the_owner_of_the_tables() -> None:
    for name, pod in pods().items():
        (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        (container,) = pod["containers"]
        uris = [one["value"] for one in container.get("env", []) if one["name"].endswith("DATABASE_URI_FILE")]
        if name == "progress-migration":
            assert uris == ["/run/secrets/progress/migration_database_uri"]
        else:
            assert uris == []
            assert {one["key"] for one in secret["items"]} == {"database_uri", "jwt_secret_key", "webhook_key"}
    services = COMPOSE["services"].items()
    assert {name for name, one in services if "migration_database_uri" in one.get("secrets", [])} == {"migration"}


def test_the_compose_file_is_valid_and_mounts_what_the_script_makes(tmp_path: Path) -> None:
    assert PyCompose.from_json(json.dumps(COMPOSE)).service_names() == list(COMPOSE["services"])

    made = secrets(tmp_path)
    assert {name: secret["file"] for name, secret in COMPOSE["secrets"].items()} == {
        name: f"secrets/{name}" for name in made
    }
    for service in COMPOSE["services"].values():
        files = {text for text in service.get("environment", {}).values() if str(text).startswith("/run/secrets/")}
        assert files <= {f"/run/secrets/{name}" for name in service.get("secrets", [])}


def test_containers_that_cannot_be_written_get_files_and_folders_that_work() -> None:
    assert "configs" not in COMPOSE  # Compose copies their content into a container when it is made
    folders = [folder for service in COMPOSE["services"].values() for folder in service.get("tmpfs", [])]
    assert not [folder for folder in folders if "mode=" in folder]  # which old versions of runc ignore


def test_whatever_stops_a_server_waits_for_its_drain_and_its_requests() -> None:
    unit = (DEPLOY / "systemd" / "progress-server@.service").read_text()
    ((drain, stop),) = re.findall(r"PROGRESS_DRAIN_SECONDS=(\d+)$.+^TimeoutStopSec=(\d+)$", unit, re.M | re.S)
    assert int(stop) > int(drain) + whole("GRACEFUL_TIMEOUT")

    service = COMPOSE["services"]["service"]
    patience = int(service["stop_grace_period"].removesuffix("s"))
    assert patience > service["environment"]["PROGRESS_DRAIN_SECONDS"] + whole("GRACEFUL_TIMEOUT")

    pod = pods()["progress"]
    (container,) = pod["containers"]
    seconds = int({one["name"]: one["value"] for one in container["env"]}["PROGRESS_DRAIN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] > seconds + whole("GRACEFUL_TIMEOUT")
    probe = container["readinessProbe"]
    assert seconds > (probe["periodSeconds"] + probe["timeoutSeconds"]) * probe["failureThreshold"]


def test_times_of_the_gateway_are_longer_or_shorter_than_the_settings_beside_them() -> None:
    text = "".join(path.read_text() for path in sorted((DEPLOY / "nginx").rglob("*.conf")))
    times = re.findall(r"(\d+)s;  # (longer|shorter) than PROGRESS_(\w+)", text)

    assert {name for _, _, name in times} == {"CATALOG_TIMEOUT", "KEEPALIVE_TIMEOUT"}
    for seconds, relation, name in times:
        assert (int(seconds) > whole(name)) == (relation == "longer")
        assert int(seconds) != whole(name)


def test_secrets_are_made_once(tmp_path: Path) -> None:
    made = secrets(tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        secrets(tmp_path)

    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert len(made["jwt_secret_key"]) == 64
