"""docs/serving.md is correct: its servers start, its calls are answered, and its tables are those of the code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')

from fusedbert.engine.cli.serve import serve
from fusedbert.engine.server import ServerOptions, create_app
from fusedbert.engine.server.openapi import STATUSES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "examples" / "fastapi_service.py").read_text(encoding="utf-8")
BASH = re.compile(r"^```bash\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def in_groups(page: str) -> dict[str, list[str]]:
    """Return each command that starts a server, and the calls that follow it."""
    groups: dict[str, list[str]] = {}
    for line in "".join(BASH.findall(page)).splitlines():
        if " serve " in line:
            groups[line] = []
        elif groups and line.startswith("curl "):
            list(groups.values())[-1].append(line)
    return groups


SERVERS = list(in_groups(PAGE).items()) + list(in_groups(README).items())


@pytest.fixture(scope="module")
def models(clone: Any, checkpoint: Path) -> Any:
    """The clone, with the artifacts that the page names: ``mine``, and a token classifier ``ner``."""
    shutil.copytree(clone.folder / "artifacts/sst2-mini", clone.folder / "artifacts/mine")
    shutil.copytree(checkpoint, clone.folder / "ner")
    config = json.loads((clone.folder / "ner/config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B-PER"}, "label2id": None}
    (clone.folder / "ner/config.json").write_text(json.dumps(config), encoding="utf-8")
    done = clone("fusedbert", "export", "ner", "artifacts/ner", "--for", "fp32")
    assert done.returncode == 0, done.stderr
    return clone


@contextlib.contextmanager
def running(folder: Path, *command: str, **variables: str) -> Iterator[str]:
    """Start a server, give its address, and end it by SIGTERM, at which it must end with 0."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FUSEDBERT_CACHE": str(folder / "cache"), **variables}
    keywords: dict[str, Any] = {"cwd": folder, "env": environment, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **keywords) as process:
        try:
            printed = []
            for line in process.stderr or ():
                printed.append(line)
                if found := re.search(r"serving .* on http://([\w.]+:\d+)", line):
                    wait_for(found[1])
                    yield found[1]
                    break
            else:
                pytest.fail("".join(printed))
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=60)
            assert (process.returncode, "Traceback" in rest) == (0, False), rest
        finally:
            process.kill()


def wait_for(address: str) -> None:
    """Wait until a server that has said where it will listen does so."""
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/health", timeout=10):
            return
        time.sleep(0.05)
    pytest.fail(f"{address} does not answer")


def answers(folder: Path, calls: list[str], address: str) -> Iterator[tuple[str, Any]]:
    """Run calls against an address; give each with its answer."""
    for call in calls:
        command = re.sub(r"localhost:\d+", address, call).replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{call}: {done.stdout}{done.stderr}"
        yield call, json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout


GOOD = "I really loved this movie."
# What a call must have in its answer, by its path and a part of the request.
EXPECTED = {
    f"/predict.*{GOOD}": lambda found: found[0]["label"] == "POSITIVE" and found[0]["score"] > 0.9,
    r"/predict.*\[\[": lambda found: [len(each) for each in found] == [2, 2],
    "/rerank.*texts": lambda found: [each["index"] for each in found] == [1, 0],
    "/v1/rerank": lambda found: found["results"][0]["document"] == {"text": "I loved it."} and found["usage"]["total_tokens"],
    "/v2/rerank": lambda found: [each["index"] for each in found["results"]] == [1],
    "/classify": lambda found: [each["label"] for each in found["data"]] == ["NEGATIVE", "POSITIVE"],
    "/score": lambda found: found["data"][0]["score"] < 0.5 < found["data"][1]["score"],
    r"localhost:\d+/ ": lambda found: found[0][0]["label"] == "POSITIVE" and len(found[0]) == 1,
    "/v1/models": lambda found: [each["id"] for each in found["data"]] == ["mine"],
    "/info": lambda found: found["models"][0]["labels"] == ["NEGATIVE", "POSITIVE"],
    "/health": lambda found: found == "",
    "/tag": lambda found: all(each["entity_group"] in ("PER", "O") for each in found),
    "/metrics": lambda found: documented_metrics() <= set(re.findall(r"^# TYPE (\w+)", found, flags=re.MULTILINE)),
}


def documented_metrics() -> set[str]:
    return set(re.findall(r"`((?:http|fusedbert)_\w+)", PAGE.partition("| metric |")[2].partition("\n\n")[0]))


@pytest.mark.parametrize(("command", "calls"), SERVERS, ids=[command for command, _ in SERVERS])
def test_a_server_of_the_page_answers_each_call(models: Any, command: str, calls: list[str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with running(models.folder, "bash", "-c", command.replace("fusedbert ", "exec fusedbert ", 1) + " --port 0") as address:
        for call, found in answers(models.folder, calls, address):
            checks = [check for pattern, check in EXPECTED.items() if re.search(pattern, call)]
            assert checks and checks[0](found), f"{call}: {found}"


def test_the_page_calls_every_path() -> None:
    calls = "\n".join(call for _, group in SERVERS for call in group)
    called = set(re.findall(r"localhost:\d+(/[\w/]*)", calls))
    named = set(re.findall(r"`(?:POST |GET )?(/[\w./]*)`", table_after("| path |")))
    assert named <= called | {"/v1/classify", "/v1/score", "/ping", "/openapi.json", "/docs"}


def test_a_server_with_a_key_refuses_whoever_has_none(models: Any) -> None:
    ((command, calls),) = [each for each in SERVERS if "FUSEDBERT_API_KEY" in each[0]]
    without = calls[0].replace("curl ", "curl --silent --output /dev/null --write-out '%{http_code}' ", 1)
    without = re.sub(r'--header "auth.*?"', "", without)
    with running(models.folder, "bash", "-c", command.replace("fusedbert ", "exec fusedbert ", 1) + " --port 0") as address:
        done = subprocess.run(
            ["bash", "-c", re.sub(r"localhost:\d+", address, without)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.stdout == "401"


def table_after(head: str) -> str:
    """Return the rows of a table, from those below its head and the line under it."""
    _, found, rest = PAGE.partition(head)
    assert found, head
    return "\n".join(rest.partition("\n\n")[0].splitlines()[2:])


def test_the_table_of_paths_is_that_of_the_schema() -> None:
    named = set(re.findall(r"(/[\w./]*)`", "\n".join(line.split("|")[1] for line in table_after("| path |").splitlines())))
    assert named == set(create_app().openapi()["paths"]) | {"/ping", "/openapi.json", "/docs", "/"}


def test_the_table_of_statuses_is_complete() -> None:
    found = re.findall(r"^\| (\d+)", table_after("| status |"), flags=re.MULTILINE)
    assert {int(number) for number in found} == {*STATUSES, 405, 431}


def test_the_table_of_limits_has_each_option_with_its_default() -> None:
    rows = re.findall(r"^\|[^|]*\| `--([\w-]+)` \| ([\w' ]+) \|", table_after("| limit |"), flags=re.MULTILINE)
    found = {name.replace("-", "_"): default for name, default in rows}
    expected = {
        name: f"{default:g}" if isinstance(default, float) else str(default)
        for name, default in ((name, getattr(ServerOptions, name)) for name in ServerOptions.__dataclass_fields__)
        if name not in ("api_key", "drain", "processes")
    }
    assert found == expected | {"max_tokens": "the device's optimum", "max_length": "the model's"}
    assert f"`--drain` seconds ({ServerOptions.drain:g})" in PAGE


def test_every_option_that_the_page_names_is_there() -> None:
    known = {name for option in serve.params for name in option.opts} | {"--help"}
    others = r"`(?:curl|docker|pip|--json|--header|--target|--cpus|--gpus|--shutdown-timeout|--budget-ms|--tmpfs)"
    named = set(re.findall(r"`(--[a-z-]+)", re.sub(others, "", PAGE)))
    assert len(named) > 15 and named <= known


def test_the_example_is_that_of_the_page_and_answers(models: Any) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert EXAMPLE.endswith(f'"""\n\n{code}') and len(code.splitlines()) <= 22
    (call,) = re.findall(r"^curl .*$", EXAMPLE, flags=re.MULTILINE)
    with running(models.folder, sys.executable, "examples/fastapi_service.py", "artifacts/mine", PORT="0") as address:
        ((_, found),) = answers(models.folder, [call], address)
        assert found.strip() == '"POSITIVE"'
        ((_, found),) = answers(models.folder, [f"""curl localhost:1/predict --json '{{"inputs": "{GOOD}"}}'"""], address)
        assert found[0]["label"] == "POSITIVE"


def test_the_table_of_a_full_queue_has_the_figures_that_were_measured() -> None:
    document = json.loads((ROOT / "bench" / "results" / "http" / "queue.json").read_text(encoding="utf-8"))
    (ours,) = (each for each in document["contenders"] if each["name"] == "fusedbert-int8")
    measured = {
        (
            *(f"{each[name]:.0f}" for name in ("rate", "achieved")),
            f"{each['errors']} of {each['arrivals']}",
            *(f"{each[name]:.0f}" for name in ("p50_ms", "p99_ms")),
        )
        for each in ours["results"]
        if each["mode"] == "8 texts"
    }
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+ of \d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 5 and set(rows) <= measured
    assert f"`{shlex.join(document['command'])}`" in PAGE
