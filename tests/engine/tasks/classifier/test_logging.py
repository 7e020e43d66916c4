"""Logging: silent unless it is configured, under names below ``fusedbert``, and never on stdout."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from fusedbert.engine import Classifier, observe


def test_nothing_is_logged_by_default(artifact: Path) -> None:
    code = (
        "import sys, logging\n"
        "from fusedbert.engine import Classifier, observe\n"
        "clf = Classifier.from_pretrained(sys.argv[1])\n"
        "observe(clf, lambda batch: 1 / 0)\n"  # logged as a warning, which Python prints where there is no handler
        "clf('good')\n"
        "assert not logging.getLogger().handlers\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "" and done.stderr == ""


def test_loading_and_runs_are_logged_on_request(artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="fusedbert"), Classifier.from_pretrained(artifact) as clf:
        observe(clf, lambda batch: 1 / 0)
        clf("good")
        clf("good")
    assert all(record.name.startswith("fusedbert.engine.") for record in caplog.records)
    loaded = [record for record in caplog.records if record.name == "fusedbert.engine.model"]
    assert loaded[0].levelno == logging.DEBUG and str(artifact) in loaded[0].getMessage()
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["WARNING"]
    assert caplog.records[-1].exc_info is not None


def test_texts_are_never_logged(artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), Classifier.from_pretrained(artifact) as clf:
        clf(["good secret", "good " * 100], truncation=True)
        clf.windows("good secret " * 50)
    assert "secret" not in caplog.text


def test_the_library_changes_no_log_level_or_handler() -> None:
    logger = logging.getLogger("fusedbert")
    assert logger.level == logging.NOTSET and logger.propagate
    assert sum(isinstance(handler, logging.NullHandler) for handler in logger.handlers) == 1
