"""What every test may use: the repository, a fusedbert in a process of its own, the embedded checkpoint as an artifact."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "from fusedbert.engine.cli import main; main()"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def checkpoint(repository) -> Path:
    """The embedded checkpoint."""
    return repository / "models" / "sst2-mini"


@pytest.fixture(scope="session")
def fusedbert(tmp_path_factory):
    """Run the command line in a fresh process, away from the user's cache; returns the CompletedProcess, with text."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*args, check=False, **keywords):
        environment = {**os.environ, "FUSEDBERT_CACHE": str(cache), **keywords.pop("env", {})}
        command = [sys.executable, "-c", MAIN, *map(str, args)]
        keywords = {"stdin": subprocess.DEVNULL} | keywords if "input" not in keywords else keywords
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False, **keywords)
        if check and done.returncode:
            pytest.fail(f"fusedbert {' '.join(map(str, args))} left with {done.returncode}: {done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def embedded(fusedbert, checkpoint, tmp_path_factory) -> Path:
    """The embedded checkpoint, exported once for all tests; not to be written to."""
    folder = tmp_path_factory.mktemp("artifacts") / "sst2-mini"
    fusedbert("export", checkpoint, folder, check=True)
    return folder


@pytest.fixture(scope="session")
def artifact(embedded) -> Path:
    """The same; tests of the engine put a tiny artifact in its place."""
    return embedded


CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium of the system's, driven by playwright; skipped with the reason where one is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser installs it")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no Chromium here ({', '.join(names)}): on Debian, apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()
