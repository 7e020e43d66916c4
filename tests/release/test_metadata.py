"""The release as an index shows it, the version and its changes, and the workflows that make it."""

import datetime
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ANY, LINUX, WINDOWS


def metadata(path, version):
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"fusedbert-{version}.dist-info/METADATA").decode()


def test_the_page_of_an_index_has_no_link_that_leads_nowhere(wheel, version, repository):
    text = metadata(wheel, version)
    head, _, page = text.partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert page.count("\n## ") == (repository / "README.md").read_text(encoding="utf-8").count("\n## ") > 3
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_changes_begin_with_this_version_or_with_what_is_unreleased(repository, version):
    (first, *_) = re.findall(r"^## (.*)$", (repository / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert first == "Unreleased" or first.split(",")[0] == version


@pytest.mark.release
def test_this_version_has_a_dated_section_of_changes(repository, version):
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(version)}, (\d{{4}}-\d\d-\d\d)\n\n- ", text, flags=re.MULTILINE)
    assert found is not None, f"CHANGELOG.md has no section '## {version}, YYYY-MM-DD' with entries"
    assert datetime.date.fromisoformat(found[1]) <= datetime.date.today()
    assert "## Unreleased" not in text


@pytest.mark.release
def test_an_index_takes_and_renders_the_release(released):
    files = [str(released(kind)) for kind in (LINUX, WINDOWS, ANY, "sdist")]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.count("PASSED") == len(files), done.stdout + done.stderr


@pytest.mark.release
def test_another_folder_and_hour_give_the_same_bytes(source, repository, tmp_path):
    shutil.copytree(source, tmp_path / "elsewhere")
    built = []
    for folder in (source, tmp_path / "elsewhere"):
        environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
        line = ["make", "wheels", f"RELEASE={repository / '.venv-release'}"]
        subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True, timeout=200)
        built.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "dist").iterdir()})
    assert len(built[0]) == 4
    assert built[0] == built[1]


@pytest.mark.release
def test_a_compiler_that_fails_stops_a_release(source, repository, tmp_path):
    folder = shutil.copytree(source, tmp_path / "broken")
    with (folder / "engine/kernels/levels.c").open("a", encoding="utf-8") as code:
        code.write("#error broken on purpose\n")
    line = ["make", "wheels", "PLATFORMS=manylinux_2_17_x86_64 any", f"RELEASE={repository / '.venv-release'}"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode != 0
    assert "kernels were not built" in done.stdout and "broken on purpose" in done.stdout


WORKFLOWS = sorted((Path(__file__).parents[2] / ".github" / "workflows").glob("*.yml"))


def commands(node):
    """Yield the shell commands of a workflow."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from [value] if key == "run" else commands(value)
    elif isinstance(node, list):
        for each in node:
            yield from commands(each)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_targets_and_files_that_exist(path, repository):
    workflow = pytest.importorskip("yaml").safe_load(path.read_text(encoding="utf-8"))
    targets = re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    shell = "\n".join(commands(workflow["jobs"]))
    named = re.findall(r"\bmake ([a-z-]+)", shell)
    files = re.findall(r"(?:python|bash) ([\w./-]+/[\w.-]+)", shell)
    assert named or files
    assert set(named) <= set(targets)
    assert [name for name in files if not (repository / name).is_file()] == []
    for job in workflow["jobs"].values():
        assert set(job.get("needs", [])) <= set(workflow["jobs"])
        assert job["timeout-minutes"] > 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_of_a_workflow_is_pinned_to_a_commit(path):
    used = re.findall(r"^\s*-? *uses: *(\S+)(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" +# v[\d.]+", comment), f"{action}: the version as a comment"
