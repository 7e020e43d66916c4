"""Parity of the tokenizer: compared with the artifact's files as the engine reads them, and with transformers.

transformers, if installed, runs in a process during the export, because its import loads torch and takes seconds.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from fusedbert.engine.errors import ExportError, InputError
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.tokenizer import TextTokenizer

from ..checkpoint import TokenizerWarning
from ..tokenizer import TextOrPair, Tokenization, split_pair
from .texts import CHECK_PAIRS

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
FIRST_TOKENS, LAST_TOKENS = 8, 16  # of the added tokens, by id, that texts are made of
LONGEST = 400_000  # characters of a text: transformers keeps all encodings that it cuts off, which takes gigabytes
MOST_SHOWN = 3  # differences in an error message
SECONDS = 120  # that transformers may take
# Of two texts that are too long, these versions of tokenizers give the odd token to the second, even if the first is longer.
ODD_CUTS = frozenset({"0.23.1", "0.23.2"})
# Prints [ids, segments] for each text; null for segments on which versions of transformers differ.
_PROGRAM = """
import json, sys
import transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True, trust_remote_code=False)
request = json.load(sys.stdin)
unsettled = int(transformers.__version__.split(".")[0]) < 5 and (
    type(tokenizer).__name__ == "PreTrainedTokenizerFast" and "model_input_names" not in tokenizer.init_kwargs
)
def encode(text, pair):
    try:
        pairs = None if pair is None else [pair]
        rows = tokenizer([text], pairs, truncation=True, max_length=request["limit"])
    except Exception:
        return None
    ids = rows["input_ids"][0]
    return [ids, None if unsettled else rows.get("token_type_ids", [[0] * len(ids)])[0]]
answers = [encode(*each) for each in request["texts"]]
bare = tokenizer(request["bare"], add_special_tokens=False)["input_ids"]
added = [token for token in tokenizer.get_added_vocab() if "mask" not in token.lower()]
added = added[: request["first"]] + added[request["first"] :][-request["last"] :]
own = [[text, encode(text, None)] for token in added for text in (token, "before " + token + " after")]
print("\\n" + json.dumps({"version": transformers.__version__, "answers": answers, "bare": bare, "own": own}))
"""
_BARE = "a text without special tokens, café and 李白"


def check_texts(tokens: Tokenization) -> list[TextOrPair]:
    """Make the texts on which tokenizers are compared."""
    texts: list[TextOrPair] = [*HARD_TEXTS, *HARD_PAIRS]
    for token in (*tokens.added[:FIRST_TOKENS], *tokens.added[FIRST_TOKENS:][-LAST_TOKENS:]):
        texts += [token, (token, token)]
        if "mask" not in token.lower():  # versions of transformers differ in whether it includes the space before it
            texts += [f"before {token} after", f"in{token}side", token.lower(), token.upper(), (token, f"{token}, {token}")]
    n = tokens.max_length
    words, others = "good bad " * n, "the movie was not that good, was it? " * max(min(n, 512), n // 4)
    longest = others * max(1, min(40, LONGEST // len(others)))
    pairs = [(words, "short"), ("short", words), (words, others), (others, words), (longest, words[: 4 * n])]
    return [*texts, words, *pairs]


def check_written(folder: Path, tokens: Tokenization) -> None:
    """Raise ``ExportError`` if the engine reads a different tokenizer from ``folder`` than the graphs were checked with."""
    written = TextTokenizer.load(folder, tokens.max_length)
    for text in check_texts(tokens):
        expected, actual = (_row(each, text) for each in (tokens.runtime, written))
        alike = expected is not None and actual is not None and not tokens.segmented and expected[0] == actual[0]
        if expected != actual and not alike:
            raise ExportError(
                f"the artifact's tokenizer makes {actual} of {_short(text)}, the checkpoint's {expected}: please report the "
                "checkpoint's tokenizer files"
            )


def show_notes(tokens: Tokenization) -> None:
    """Issue a tokenizer's notes as warnings."""
    for note in tokens.notes:
        warnings.warn(note, TokenizerWarning, stacklevel=3)


def report_differences(lines: Sequence[str], *, allowed: bool) -> None:
    """Warn about texts that transformers tokenizes differently; raise ``ExportError`` if that is not ``allowed``."""
    if not lines:
        return
    more = f"; and {len(lines) - MOST_SHOWN} more texts" if len(lines) > MOST_SHOWN else ""
    message = f"the tokenizer is not that of transformers: {'; '.join(lines[:MOST_SHOWN])}{more}"
    if not allowed:
        older = "fusedbert follows transformers 5, which reads some files differently from 4; otherwise, "
        raise ExportError(
            f"{message}: {older if 'in transformers 4.' in message else ''}please report the checkpoint's tokenizer files; "
            "--allow-tokenizer-difference exports all the same"
        )
    warnings.warn(message, TokenizerWarning, stacklevel=3)


@contextlib.contextmanager
def against_transformers(folder: Path) -> Iterator[Callable[[Tokenization], list[str]]]:
    """Start transformers' tokenizer of a checkpoint in a process; yield a function that lists differences from another one.

    It returns a line for each text; none if transformers is missing, or with a warning if it fails.
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
        yield lambda tokens: differences(tokens, _asked(process, tokens))
    finally:
        process.kill()
        process.communicate()


def differences(tokens: Tokenization, answer: Mapping[str, Any] | None) -> list[str]:
    """List the texts of which a tokenizer makes other rows than transformers; ``answer`` is what ``_PROGRAM`` prints."""
    if answer is None:
        return []
    lines = []
    # Our texts have no tokens that only transformers adds, so it makes texts of its added tokens as well.
    for text, expected in [*zip(check_texts(tokens), answer["answers"], strict=True), *answer["own"]]:
        row = _row(tokens.runtime, text)
        if row is None or expected is None or not expected[0]:
            continue  # the model cannot take this text
        ids, types = expected
        if tokenizers.__version__ in ODD_CUTS and _cuts_both(tokens, text):
            continue  # by the library's fault, not by the checkpoint
        if row[0] != ids or (types is not None and tokens.segmented and row[1] != types):
            lines.append(f"{_short(text)} becomes {_start(row)}, in transformers {answer['version']} {_start((ids, types))}")
    bare = tokens.runtime.raw.encode(_BARE, add_special_tokens=False).ids
    if bare != answer["bare"]:
        lines.append(f"{_BARE!r} becomes {bare[:12]} without special tokens, in transformers {answer['bare'][:12]}")
    return lines


def _cuts_both(tokens: Tokenization, text: TextOrPair) -> bool:
    """Return whether both texts of a pair are cut, since each has more than half of the tokens."""
    parts = [tokens.runtime.raw.encode(part, add_special_tokens=False) for part in split_pair(text) if part is not None]
    return len(parts) == 2 and all(2 * len(part.ids) > tokens.max_length for part in parts)


def _asked(process: subprocess.Popen[str], tokens: Tokenization) -> Any:
    """Return what transformers makes of the check texts; None, with a warning, if it fails."""
    answer = _ask(process, tokens)
    if answer is None:
        warnings.warn(
            f"transformers was asked for the ids of {len(check_texts(tokens))} texts, and its process failed or took more than "
            f"{SECONDS} s: the tokenizer is not compared with it",
            TokenizerWarning,
            stacklevel=4,
        )
    return answer


def _ask(process: subprocess.Popen[str], tokens: Tokenization) -> Any:
    """Return what transformers makes of the check texts; None if it fails, or takes too long."""
    request = {"limit": tokens.max_length, "bare": _BARE, "first": FIRST_TOKENS, "last": LAST_TOKENS}
    killer = threading.Timer(SECONDS, process.kill)
    killer.start()
    try:
        printed, _ = process.communicate(json.dumps({**request, "texts": list(map(split_pair, check_texts(tokens)))}))
    except (OSError, ValueError):
        return None
    finally:
        killer.cancel()
    return json.loads(printed.strip().splitlines()[-1]) if process.returncode == 0 else None


def _row(tokenizer: TextTokenizer, text: TextOrPair) -> tuple[list[int], list[int]] | None:
    first, pair = split_pair(text)
    try:
        (row,) = tokenizer.encode([Text(text=first, pair=pair, index=0)])
    except InputError:
        return None
    return row.ids, row.types


def _short(text: TextOrPair) -> str:
    return " and ".join(repr(part[:40]) for part in split_pair(text) if part is not None)


def _start(row: tuple[list[int], list[int] | None]) -> str:
    ids, types = row
    second = f", segment 1 from {types.index(1)}" if types and 1 in types else ""
    return f"{len(ids)} ids {ids[:8]}...{ids[-4:]}{second}"
