"""The files of examples/containers agree with the server, with each other, and with what a container is to be.

No container runtime is needed: the Dockerfile is parsed, and the commands of all files are given to the options of the server.
"""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from fusedbert.engine.cli.serve import serve
from fusedbert.engine.server.options import ServerOptions

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "examples" / "containers"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return the stages of the Dockerfile by name: the image that each begins with, and its instructions."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, _, rest in (line.partition(" ") for line in lines if line):
        if word == "FROM":
            image, name = rest.split(" AS ")
            found[name] = image, []
        else:
            list(found.values())[-1][1].append((word, rest))
    return found


STAGES = stages()
LAST = ("cpu", "cuda")


def instructions(stage: str) -> list[tuple[str, str]]:
    """Return the instructions of a stage and of those that it begins with."""
    image, found = STAGES[stage]
    return [*(instructions(image) if image in STAGES else []), *found]


def given(stage: str, word: str) -> str:
    """Return what follows the last instruction of a kind."""
    return [rest for found, rest in instructions(stage) if found == word][-1]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return the options that the server makes of arguments."""
    with serve.make_context("serve", list(arguments)) as context:
        return context.params


def test_images_are_pinned_and_the_last_ones_have_no_compiler() -> None:
    assert list(STAGES)[-1] == "cpu"  # which is built where no target is named
    for image, _ in STAGES.values():
        assert image in STAGES or re.fullmatch(r"python:3\.\d+(-slim)?-\w+", image), image
    for name in LAST:
        root = STAGES[STAGES[name][0]][0]
        assert "-slim" in root and "RUN" not in dict(instructions(name))
    pythons = {image.split("-")[0] for image, _ in STAGES.values() if image not in STAGES}
    assert len(pythons) == 1  # the virtual environment is copied from one to the other


def test_no_cache_gets_into_a_layer_and_all_versions_are_constrained() -> None:
    runs = [rest for _, found in STAGES.values() for word, rest in found if word == "RUN"]
    installs = [run for run in runs if "pip" in run and " install " in run]
    assert len(installs) == 2 and all("--no-cache-dir" in run and "--constraint constraints.txt" in run for run in installs)
    extras = {name for run in installs for name in re.findall(r'"\.\[([\w,]+)\]"', run)}
    assert extras == {"cpu,serve", "gpu,serve"}
    assert {name for each in extras for name in each.split(",")} <= set(PROJECT["project"]["optional-dependencies"])
    assert not any(word in ("ADD", "SHELL", "VOLUME") for _, found in STAGES.values() for word, _ in found)


@pytest.mark.parametrize("stage", LAST)
def test_the_server_is_process_1_of_a_user_who_is_not_root(stage: str) -> None:
    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", given(stage, "USER"))  # a number, which runAsNonRoot can check
    entry, rest = json.loads(given(stage, "ENTRYPOINT")), json.loads(given(stage, "CMD"))
    assert entry[:2] == ["fusedbert", "serve"] and "fusedbert" in PROJECT["project"]["scripts"]
    options = parsed([*entry[2:], *rest])
    assert options["host"] == "0.0.0.0" and options["models"] == ("/models/model",)
    assert str(options["port"]) == given(stage, "EXPOSE")
    _, _, check = given(stage, "HEALTHCHECK").partition("CMD ")
    program, flag, code = json.loads(check)
    assert (program, flag) == ("python", "-c") and f"127.0.0.1:{options['port']}/health" in code
    compile(code, "HEALTHCHECK", "exec")


def let_through(path: str) -> bool:
    """Return whether the ignore file lets a file of the repository into the build; the last pattern that fits decides."""
    lines = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = True
    for pattern in (line for line in lines if line and not line.startswith("#")):
        plain = pattern.lstrip("!").rstrip("/")
        parts = path.split("/") if plain.startswith("**/") else path.split("/")[:1]  # others begin at the top
        if any(fnmatch.fnmatch(part, plain.removeprefix("**/")) for part in parts):
            kept = pattern.startswith("!")
    return kept


def test_the_build_gets_what_a_wheel_is_made_of_and_nothing_else() -> None:
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is not a clone")
    files = [name for name in done.stdout.split("\0") if name]
    folders = set(PROJECT["tool"]["setuptools"]["package-dir"].values())
    single = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"}
    needed = {name for name in files if name.partition("/")[0] in folders and "/" in name} | single
    assert {name for name in files if let_through(name)} == needed
    others = (".git/config", ".venv/bin/python", "artifacts/x/onnx/model.onnx", "engine/__pycache__/a.pyc", "engine/a.so")
    assert not any(map(let_through, others))


COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
# The keys of a service in the compose specification that these services may have.
SERVICE = {
    *("build", "image", "command", "environment", "volumes", "ports", "profiles", "deploy", "restart", "init", "tmpfs"),
    *("read_only", "cap_drop", "security_opt", "cpus", "mem_limit", "pids_limit", "stop_grace_period"),
}


@pytest.mark.parametrize("name", LAST)
def test_a_service_of_compose_builds_its_stage_and_may_do_little(name: str) -> None:
    service = COMPOSE["services"][name]
    assert set(COMPOSE) == {"services", "x-server"} and set(service) <= SERVICE
    build = service["build"]
    assert build["target"] == name and (FOLDER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).samefile(FOLDER / "Dockerfile")
    assert [port.rpartition(":")[2] for port in service["ports"]] == [given(name, "EXPOSE")]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert all(volume.endswith(":ro") for volume in service["volumes"]) and service["tmpfs"] == ["/tmp"]
    assert float(service["stop_grace_period"].removesuffix("s")) >= ServerOptions.drain + 2
    (model,) = parsed(service["command"])["models"]
    assert model.startswith("/models/")


DEPLOYMENT, SERVICE_OBJECT = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_the_pod_has_as_long_to_end_as_the_server_takes() -> None:
    command = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    drain = parsed(CONTAINER["args"])["drain"]
    assert POD["terminationGracePeriodSeconds"] >= float(command[1]) + drain + 5


def test_the_probes_ask_a_path_that_needs_no_key_on_the_port_of_the_image() -> None:
    from fusedbert.engine.server.http.front import OPEN

    (port,) = CONTAINER["ports"]
    assert str(port["containerPort"]) == given("cpu", "EXPOSE")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["path"] in OPEN and asked["port"] == port["name"]
    startup, ready, live = (CONTAINER[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
    assert live["periodSeconds"] * live["failureThreshold"] > 2 * ready["periodSeconds"] * ready["failureThreshold"]
    assert SERVICE_OBJECT["spec"]["ports"][0]["targetPort"] == port["name"]
    assert SERVICE_OBJECT["spec"]["selector"] == DEPLOYMENT["spec"]["template"]["metadata"]["labels"]


def test_the_pod_may_do_little() -> None:
    user, group = map(int, given("cpu", "USER").split(":"))
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["runAsGroup"]) == (True, user, group)
    assert container["readOnlyRootFilesystem"] and not container["allowPrivilegeEscalation"]
    assert container["capabilities"] == {"drop": ["ALL"]} and POD["automountServiceAccountToken"] is False
    mounts = {mount["mountPath"]: mount.get("readOnly") for mount in CONTAINER["volumeMounts"]}
    assert mounts == {"/models": True, "/tmp": None}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    assert set(CONTAINER["resources"]) == {"requests", "limits"} and "memory" in CONTAINER["resources"]["limits"]


def test_the_variable_of_the_key_is_that_of_the_server() -> None:
    (option,) = [each for each in serve.params if isinstance(each, click.Option) and each.name == "api_key"]
    assert option.envvar in COMPOSE["services"]["cpu"]["environment"]
    assert option.envvar in {each["name"] for each in CONTAINER["env"]}


def test_the_page_builds_stages_that_are_there() -> None:
    assert set(re.findall(r"--target (\w+)", PAGE)) == set(LAST)
    assert "fusedbert:cpu" in PAGE and COMPOSE["services"]["cpu"]["image"] == "fusedbert:cpu"
