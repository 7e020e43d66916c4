"""The tokenizer against transformers' own, where that is installed, on texts that tokenizers stumble over.

transformers runs in a process of its own beside the export: importing it brings torch along and takes seconds, and
the export needs neither.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fusedbert.export.tokenizer import Tokenization

HARD_TEXTS = (
    "naïve café Ångström ÀÉÎÕÜ ﬁne ½ ①",
    "李白 writes 诗, 김치 and ひらがな; Привет, мир; مرحبا",
    "a\u0300\u0301 e\u0301 \u200b\u200d\ufeff \u00ad \u2028 \u0085",
    "🙂🙃 👩‍👩‍👧 lol!!! so-so...",
    "x" * 101 + " " + "y" * 100,
    "don't stop!!! #hash @at $5.00 50% a_b a-b <br />",
    "\x01\x02\x7f control \x00 NUL",
    "   leading and   inner\t spaces \n ",
    "Antidisestablishmentarianism 1234567890 MiXeD CaSe",
    "",
)
SECONDS = 120
_PROGRAM = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
print("\\n" + json.dumps([tokenizer(text)["input_ids"] for text in json.load(sys.stdin)]))
"""


@contextlib.contextmanager
def against_transformers(folder: Path) -> Iterator[Callable[[Tokenization], list[str]]]:
    """Let transformers tokenize the hard texts while the block runs.

    Args:
        folder: The checkpoint.

    Yields:
        A function that compares with a tokenizer of ours, and returns one line for each text that differs; none where
        transformers is not installed or cannot read the checkpoint's tokenizer.
    """
    if importlib.util.find_spec("transformers") is None:
        yield lambda _: []
        return
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"},
        text=True,
    )
    answer: list[str] = []
    # Read in a thread: the program must not wait for a full pipe while the block runs.
    reader = threading.Thread(target=lambda: answer.append(process.communicate(json.dumps(HARD_TEXTS))[0]), daemon=True)
    reader.start()

    def compare(tokens: Tokenization) -> list[str]:
        reader.join(SECONDS)
        lines = answer[0].strip().splitlines() if answer and process.returncode == 0 else []
        if not lines:
            return []
        expected = zip(HARD_TEXTS, json.loads(lines[-1]), strict=True)
        pairs = [(text, tokens.whole(text), theirs) for text, theirs in expected]
        return [
            f"{text[:40]!r} becomes {ours[:12]}, in transformers {theirs[:12]}"
            for text, ours, theirs in pairs
            if ours != theirs
        ]

    try:
        yield compare
    finally:
        process.kill()
        reader.join()
