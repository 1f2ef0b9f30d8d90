"""Checks of the deployment files that need no container engine."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipeline.telemetry import SILENT

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (INFRA / "Dockerfile").read_text()
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)(:-[^}]*|:\?[^}]+)\}")
SECRET = re.compile(r"PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY")
LOCKS = ("train", "services")


def pins(path: Path) -> dict[str, list[tuple[str, list[str]]]]:
    """Map a package to its (line, hashes): one entry per range of Pythons with its own version."""
    pinned: dict[str, list[tuple[str, list[str]]]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", path.read_text()):
        if re.match(r"[a-z0-9][a-z0-9._-]*==", block):
            line = block.partition("\n")[0].rstrip(" \\")
            hashes = sorted(re.findall(r"--hash=sha256:[0-9a-f]{64}", block))
            pinned.setdefault(line.partition("==")[0], []).append((line, hashes))
    return pinned


def instructions(dockerfile: str) -> list[list[str]]:
    """Split a Dockerfile into the words of each instruction; drop comments, join continued lines."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line.split() for line in joined.splitlines() if line.strip()]


def variables_in_compose() -> set[str]:
    """Return the environment variables that compose.yaml reads."""
    return {match["name"] for match in VARIABLE.finditer((INFRA / "compose.yaml").read_text())}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version_and_images_of_this_project_are_built_from_the_dockerfile(name):
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert re.match(r"\d+\.\d+", tag), service["image"]
    if "build" in service:
        assert (INFRA / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert f" AS {service['build']['target']}\n" in DOCKERFILE


def test_every_published_port_is_on_loopback():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(service.get("network_mode") == "host" for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_of_a_service_is_a_required_variable(name):
    for key, value in SERVICES[name]["environment"].items():
        if SECRET.search(key):
            assert re.fullmatch(r"\$\{[A-Z_0-9]+:\?[^}]+\}", value), key


def test_no_address_and_no_identity_contains_a_password():
    text = (INFRA / "compose.yaml").read_text()
    assert not re.search(r"://[^/\s@]+:[^/\s@]+@", text)
    identities = COMPOSE["configs"]["identities"]["content"]
    for pair in json.loads(identities)["identities"][0]["credentials"]:
        assert all(value.startswith("${") and ":?" in value for value in pair.values())


def test_env_example_names_every_variable_and_contains_no_secret():
    lines = (INFRA / "env.example").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(values) == variables_in_compose()
    for name, value in values.items():
        if re.search(r"PASSWORD|KEY|AUTH", name):
            assert value.endswith("CHANGE-ME"), name
    assert ".env" in (INFRA / ".gitignore").read_text().splitlines()


def test_telemetry_is_off_in_every_service_that_is_built_here():
    assert COMPOSE["x-silent"] == SILENT
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["environment"].items() >= SILENT.items(), name


def test_services_wait_only_for_conditions_that_can_be_met():
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] == "no", (name, other)


@pytest.mark.parametrize("kind", ["configs", "volumes"])
def test_mounted_configs_and_volumes_are_the_defined_ones(kind):
    used = set()
    for service in SERVICES.values():
        for mount in service.get(kind, []):
            source = mount["source"] if isinstance(mount, dict) else mount.partition(":")[0]
            used |= {source} if source[0] not in ".$/" else set()
    assert used == set(COMPOSE[kind])


def test_deployments_and_worker_mount_the_checkout_at_the_same_path():
    for name in ("deployments", "worker"):
        assert "..:/workspace" in SERVICES[name]["volumes"]
    assert SERVICES["deployments"]["command"][-1] == "/workspace"


def test_the_worker_serves_the_pool_of_the_deployments():
    pool = re.search(r'^POOL = "(.+)"$', (ROOT / "flows/deployments.py").read_text(), re.M)
    command = SERVICES["worker"]["command"]
    assert command[command.index("--pool") + 1] == pool[1]


def test_the_dockerfile_has_both_targets_and_neither_runs_as_root():
    default = {w[1].partition("=")[0]: w[1] for w in instructions(DOCKERFILE) if w[0] == "ARG"}
    assert default["USER_ID"] == "USER_ID=1000"
    users: dict[str, str] = {}
    for words in instructions(DOCKERFILE):
        if words[0] == "FROM":
            target = words[words.index("AS") + 1]
        elif words[0] == "USER":
            users[target] = words[1]
    assert users == dict.fromkeys(("services", "train"), "${USER_ID}:${GROUP_ID}")


def test_the_dockerfile_downloads_nothing_by_address_and_pins_its_base_image():
    words = instructions(DOCKERFILE)
    assert not [instruction for instruction in words if instruction[0] == "ADD"]
    assert not re.search(r"https?://|latest|curl |wget ", DOCKERFILE)
    bases = {instruction[1] for instruction in words if instruction[0] == "FROM"}
    assert bases == {"${PYTHON_IMAGE}", "${TRAIN_BASE}"}
    assert ["ARG", "TRAIN_BASE=${PYTHON_IMAGE}"] in words
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-", DOCKERFILE, re.M)


def test_every_install_of_the_dockerfile_checks_hashes():
    installs = [
        command
        for words in instructions(DOCKERFILE)
        for command in " ".join(words).split("&&")
        if "pip install" in command
    ]
    assert len(installs) == 4
    assert all("--require-hashes" in command for command in installs)


def test_the_dockerfile_copies_only_files_that_exist():
    sources = re.findall(r"type=bind,source=([^,]+),", DOCKERFILE)
    sources += [words[1] for words in instructions(DOCKERFILE) if words[0] == "COPY"]
    assert sources and all((ROOT / source).is_file() for source in sources)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_a_hash_for_every_package_and_no_index_address(name):
    path = INFRA / f"{name}.lock"
    assert all(hashes for entries in pins(path).values() for _, hashes in entries)
    assert not re.search(r"://|--index-url|--extra-index", path.read_text())


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_agrees_with_requirements_lock(name):
    """A package that is in both has the same versions and hashes."""
    whole = pins(ROOT / "requirements.lock")
    for package, entries in pins(INFRA / f"{name}.lock").items():
        if name == "train" or package in whole:
            versions = {re.split(r" ?;", line)[0]: hashes for line, hashes in entries}
            expected = {re.split(r" ?;", line)[0]: hashes for line, hashes in whole[package]}
            assert versions == expected, package


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_contains_every_package_of_its_list(name):
    lines = (INFRA / f"{name}.in").read_text().splitlines()
    listed = {re.match(r"[a-z0-9-]+", line)[0] for line in lines if not line.startswith("#")}
    assert listed <= set(pins(INFRA / f"{name}.lock"))


def test_the_training_job_runs_the_command_of_the_stage_on_one_gpu_without_root():
    job = yaml.safe_load((INFRA / "kubernetes/training-job.yaml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == shlex.split(stages["train"]["cmd"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert pod["restartPolicy"] == "OnFailure" and job["spec"]["backoffLimit"] > 0
