"""The Dockerfile, the systemd unit and the Kubernetes manifest, as far as they can be tried without their programs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from support.paths import ROOT

from reaugkd.cli import cli
from reaugkd.serve.routes import routes_of
from reaugkd.serve.settings import ServerSettings

EXAMPLES = ROOT / "examples" / "serve"
PUBLIC = {
    path
    for path, of_path in routes_of(ServerSettings({"bundle": Path("bundle")})).items()
    if "GET" in of_path and of_path["GET"].access == "public"
}


def parsed(*arguments: str) -> dict[str, Any]:
    """The options of a call of the command, which must be valid."""
    parent = click.Context(cli, **cli.context_settings)  # a command keeps the names of its first help option
    command = cli.get_command(parent, "serve")
    assert command is not None
    return command.make_context("serve", list(arguments), parent=parent).params


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8"))}


def instructions() -> dict[str, list[str]]:
    text = (EXAMPLES / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        if name.isupper():
            found.setdefault(name, []).append(rest)
    return found


def test_the_image_runs_a_valid_command_without_rights() -> None:
    found = instructions()
    command = [*yaml.safe_load(found["ENTRYPOINT"][0]), *yaml.safe_load(found["CMD"][0])]
    assert command[:2] == ["/opt/reaugkd/bin/reaugkd", "serve"]
    options = parsed(*command[2:])
    assert options["host"] == "0.0.0.0" and [str(options["port"])] == found["EXPOSE"]
    assert found["USER"] == ["10001:10001"] and found["STOPSIGNAL"] == ["SIGTERM"]
    (health,) = found["HEALTHCHECK"]
    paths = re.findall(r"127\.0\.0\.1:8080(/\w+)", health)
    assert paths and set(paths) <= PUBLIC
    assert all(Path(file).name in {file.name for file in ROOT.iterdir()} for file in re.findall(r"\S+\.txt", health))


def test_the_image_has_what_the_extras_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = {re.split("[<>=]", one)[0] for extra in ("serve", "serve-fast") for one in extras[extra]}
    (installed,) = re.findall(r'\$install (uvicorn .+?"usearch<3")', " ".join(instructions()["RUN"]))
    assert {re.split("[<>=]", one)[0] for one in shlex.split(installed)} == {*named, "usearch"} - {"reaugkd[serve]"}
    assert "!serve" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_the_unit_starts_reloads_and_stops() -> None:
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(EXAMPLES / "reaugkd.service", encoding="utf-8")
    service = unit["Service"]
    command = shlex.split(service["ExecStart"])
    options = parsed(*command[2:])
    assert int(service["TimeoutStopSec"]) > options["drain_seconds"] + options["deadline"] + 2
    assert "-HUP" in service["ExecReload"]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    done = subprocess.run(
        ["systemd-analyze", "verify", EXAMPLES / "reaugkd.service"], capture_output=True, text=True, timeout=60
    )
    faults = [line for line in done.stderr.splitlines() if "reaugkd.service" in line]
    assert [line for line in faults if "is not executable" not in line] == []  # it is not installed here


def test_the_pods_probe_public_routes_and_have_time_to_drain(manifest: dict[str, Any]) -> None:
    spec = manifest["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    options = parsed(*container["args"])
    assert spec["terminationGracePeriodSeconds"] > options["drain_seconds"] + options["deadline"] + 2
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    assert all(probe["httpGet"]["path"] in PUBLIC for probe in probes.values())
    assert probes["liveness"]["httpGet"]["path"] == "/livez"  # a pod that drains must not be killed
    # The drain must be longer than it takes until a pod that is not ready gets no more requests.
    period = probes["readiness"]["periodSeconds"] * probes["readiness"]["failureThreshold"]
    assert options["drain_seconds"] > 2 * period


def test_the_pods_have_no_rights_and_a_read_only_root(manifest: dict[str, Any]) -> None:
    spec = manifest["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]} and spec["securityContext"]["runAsNonRoot"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["bundle"] == parsed(*container["args"])["bundles"][0]
    assert {volume["name"] for volume in spec["volumes"]} == set(mounts)


def test_the_service_selects_the_pods(manifest: dict[str, Any]) -> None:
    template = manifest["Deployment"]["spec"]["template"]
    selector = manifest["Service"]["spec"]["selector"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert manifest["Deployment"]["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert manifest["Service"]["spec"]["ports"][0]["targetPort"] in ports
    assert str(ports["http"]) == template["metadata"]["annotations"]["prometheus.io/port"]
