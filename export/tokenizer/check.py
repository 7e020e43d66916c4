"""The tokenizer held against two others: the artifact's own files as the engine reads them, and transformers', where installed.

The texts are those that tokenizers stumble over: accents, Chinese and control characters, the added and special tokens of
this very tokenizer, pairs, and texts that are cut on whichever side. Ids, segments and lengths have to be the same.

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
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import ExportError, InputError
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.tokenizer import TextTokenizer

from ..checkpoint.notes import TokenizerWarning
from ..parity.texts import CHECK_PAIRS
from .tokenization import TextOrPair, Tokenization, parts

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
HARD_PAIRS = (
    *CHECK_PAIRS,
    ("Čafé NAÏVE", "李白 诗"),
    ("a pair whose second text is empty", ""),
    ("", "and one whose first is"),
)
FIRST_TOKENS, LAST_TOKENS = 8, 16  # of the added tokens, by id: texts are made of these
MOST_TOLD = 3  # differences that an error shows
SECONDS = 120
# Answers [ids, segments] for each text, None for segments that versions of transformers do not agree on.
_PROGRAM = """
import json, sys
import transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True, trust_remote_code=False)
asked = json.load(sys.stdin)
unsettled = int(transformers.__version__.split(".")[0]) < 5 and (
    type(tokenizer).__name__ == "PreTrainedTokenizerFast" and "model_input_names" not in tokenizer.init_kwargs
)
def encode(text, pair):
    try:
        pairs = None if pair is None else [pair]
        found = tokenizer([text], pairs, truncation=True, max_length=asked["limit"])
    except Exception:
        return None
    ids = found["input_ids"][0]
    return [ids, None if unsettled else found.get("token_type_ids", [[0] * len(ids)])[0]]
answers = [encode(*each) for each in asked["texts"]]
bare = tokenizer(asked["bare"], add_special_tokens=False)["input_ids"]
added = [token for token in tokenizer.get_added_vocab() if "mask" not in token.lower()]
added = added[: asked["first"]] + added[asked["first"] :][-asked["last"] :]
own = [[text, encode(text, None)] for token in added for text in (token, "before " + token + " after")]
print("\\n" + json.dumps({"version": transformers.__version__, "answers": answers, "bare": bare, "own": own}))
"""
_BARE = "a text without special tokens, café and 李白"


def check_texts(tokens: Tokenization) -> list[TextOrPair]:
    """Make the texts on which a tokenizer is held against others."""
    made: list[TextOrPair] = [*HARD_TEXTS, *HARD_PAIRS]
    for token in (*tokens.added[:FIRST_TOKENS], *tokens.added[FIRST_TOKENS:][-LAST_TOKENS:]):
        made += [token, (token, token)]
        if "mask" not in token.lower():  # whether it takes the space before it along, versions of transformers do not agree on
            made += [f"before {token} after", f"in{token}side", token.lower(), token.upper(), (token, f"{token}, {token}")]
    n = tokens.max_length
    words, others = "good bad " * n, "the movie was not that good, was it? " * n
    pairs = [(words, "short"), ("short", words), (words, others), (others, words), (others * 40, words[: 4 * n])]
    return [*made, words, *pairs]


def check_written(folder: Path, tokens: Tokenization) -> None:
    """Read the artifact's tokenizer as the engine does, and see that it feeds the ids that the graphs were checked on.

    Args:
        folder: Where tokenizer.json and tokenizer_config.json were written, with config.json beside them.
        tokens: The checkpoint's tokenizer.

    Raises:
        ExportError: They differ.
    """
    written = TextTokenizer.load(folder, tokens.max_length)
    for text in check_texts(tokens):
        ours, theirs = (_row(each, text) for each in (tokens.runtime, written))
        alike = ours is not None and theirs is not None and not tokens.segmented and ours[0] == theirs[0]
        if ours != theirs and not alike:
            raise ExportError(
                f"the artifact's tokenizer makes {theirs} of {_short(text)}, the checkpoint's {ours}: please report the "
                "checkpoint's tokenizer files"
            )


def tell_notes(tokens: Tokenization) -> None:
    """Warn, a line each, of what whoever exports should know of a tokenizer."""
    for note in tokens.notes:
        warnings.warn(note, TokenizerWarning, stacklevel=3)


def settle_differences(lines: Sequence[str], *, allowed: bool) -> None:
    """Make an error of the texts of which transformers makes something else, or warnings where they are allowed.

    Raises:
        ExportError: There are some, and they are not allowed.
    """
    if not lines:
        return
    told = "; ".join(lines[:MOST_TOLD]) + (f"; and {len(lines) - MOST_TOLD} more texts" if len(lines) > MOST_TOLD else "")
    message = f"the tokenizer is not that of transformers: {told}"
    if not allowed:
        older = "transformers 5 is followed here, and reads some files otherwise than 4; if not that is it, "
        raise ExportError(
            f"{message}: {older if 'in transformers 4.' in message else ''}please report the checkpoint's tokenizer files; "
            "--allow-tokenizer-difference exports all the same"
        )
    warnings.warn(message, TokenizerWarning, stacklevel=3)


@contextlib.contextmanager
def against_transformers(folder: Path) -> Iterator[Callable[[Tokenization], list[str]]]:
    """Have transformers ready to tokenize while the block runs.

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
    try:
        yield lambda tokens: _differences(process, tokens)
    finally:
        process.kill()
        process.communicate()


def _differences(process: subprocess.Popen[str], tokens: Tokenization) -> list[str]:
    """Ask transformers, and list the texts of which it makes something else."""
    texts = check_texts(tokens)
    asked = {
        "limit": tokens.max_length,
        "texts": [parts(text) for text in texts],
        "bare": _BARE,
        "first": FIRST_TOKENS,
        "last": LAST_TOKENS,
    }
    answer = _ask(process, json.dumps(asked))
    if answer is None:
        return []
    lines = []
    # What transformers adds and we do not would be in no text of ours: it makes some of its own.
    for text, theirs in [*zip(texts, answer["answers"], strict=True), *answer["own"]]:
        ours = _row(tokens.runtime, text)
        if ours is None or theirs is None or not theirs[0]:
            continue  # neither can feed it
        ids, types = theirs
        if ours[0] != ids or (types is not None and tokens.segmented and ours[1] != types):
            lines.append(f"{_short(text)} becomes {_first(ours)}, in transformers {answer['version']} {_first((ids, types))}")
    bare = tokens.runtime.raw.encode(_BARE, add_special_tokens=False).ids
    if bare != answer["bare"]:
        lines.append(f"{_BARE!r} becomes {bare[:12]} without special tokens, in transformers {answer['bare'][:12]}")
    return lines


def _ask(process: subprocess.Popen[str], question: str) -> Any:
    """Return the process's answer; None where it has none, or takes too long."""
    killer = threading.Timer(SECONDS, process.kill)
    killer.start()
    try:
        printed, _ = process.communicate(question)
    except (OSError, ValueError):
        return None
    finally:
        killer.cancel()
    return json.loads(printed.strip().splitlines()[-1]) if process.returncode == 0 else None


def _row(tokenizer: TextTokenizer, text: TextOrPair) -> tuple[list[int], list[int]] | None:
    """Return ids and segments of a text, None where the model cannot be fed it."""
    first, pair = parts(text)
    try:
        (row,) = tokenizer.encode([Text(text=first, pair=pair, index=0)])
    except InputError:
        return None
    return row.ids, row.types


def _short(text: TextOrPair) -> str:
    return " and ".join(repr(part[:40]) for part in parts(text) if part is not None)


def _first(row: tuple[list[int], list[int] | None]) -> str:
    """Show the start of a row: how long it is, its first ids, and where its second segment begins."""
    ids, types = row
    second = f", segment 1 from {types.index(1)}" if types and 1 in types else ""
    return f"{len(ids)} ids {ids[:8]}...{ids[-4:]}{second}"
