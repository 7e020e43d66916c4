"""Vocabularies of a checkpoint's folder: in tokenizer.json, vocab.txt, vocab.json with merges.txt, or sentencepiece's model."""

from __future__ import annotations

import dataclasses
from typing import Any

from tokenizers import models

from fusedbert.engine.artifact import LARGE, check_regular, read_regular
from fusedbert.engine.errors import CheckpointError, without_panic

from .files import CONFIG, TOKENIZER, TokenizerFiles
from .spm import read_pieces

Spec = dict[str, Any]
_MODELS = ("spiece.model", "sentencepiece.bpe.model", "spm.model")
_KNOWN = (TOKENIZER, "vocab.txt", "vocab.json", "merges.txt", "bpe.codes", *_MODELS)


def vocabulary(files: TokenizerFiles, stored: Spec | None, kind: str) -> Any:
    """Return the vocabulary in tokenizer.json, which must be of a ``kind`` such as Unigram."""
    if stored is None:
        return lacking(files, f"a {kind} tokenizer", TOKENIZER)
    if (actual := stored["model"]["type"]) != kind:
        raise CheckpointError(
            f"{files.folder / TOKENIZER} is {actual}, and the checkpoint's tokenizer class is made for {kind}: "
            f"if the file is right, set tokenizer_class in {CONFIG} to PreTrainedTokenizerFast"
        )
    return stored["model"]["vocab"]


def lines(files: TokenizerFiles) -> dict[str, int]:
    """Read vocab.txt; only newlines end a line, because other separators may be pieces."""
    path = files.folder / "vocab.txt"
    if not path.is_file():
        return dict(lacking(files, "BertTokenizer", "vocab.txt"))
    try:
        text = read_regular(path, LARGE).decode("utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 ({error}): save the tokenizer again") from None
    lines = text.split("\n")
    # Blanks at the end do not belong to a piece, unless it has only blanks.
    return {line.rstrip() or line.rstrip(" \t\r"): i for i, line in enumerate(lines[:-1] if not lines[-1] else lines)}


def merges(files: TokenizerFiles) -> tuple[dict[str, int], list[Any]]:
    """Read vocab.json and merges.txt."""
    paths = [files.folder / name for name in ("vocab.json", "merges.txt")]
    if not all(path.is_file() for path in paths):
        return lacking(files, "RobertaTokenizer", "vocab.json and merges.txt"), []
    try:
        for path in paths:
            check_regular(path.stat(), LARGE)
        with without_panic():
            vocab, merges = models.BPE.read_file(*map(str, paths))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(f"{paths[0]} and merges.txt cannot be read ({error}): save the tokenizer again") from None
    return vocab, merges


def pieces(files: TokenizerFiles, name: str, file: str) -> tuple[TokenizerFiles, Spec]:
    """Read sentencepiece's model as a tokenizer.json; also return the settings, which it completes as in transformers."""
    path = files.folder / file
    if not path.is_file():
        return files, lacking(files, name, file)
    found = read_pieces(path)
    config = {**files.config, "unk_id": found.unknown}
    return dataclasses.replace(files, config=config, extra=files.extra if files.listed else found.added), found.spec()


def lacking(files: TokenizerFiles, name: str, wanted: str) -> Any:
    """Raise ``CheckpointError`` for a folder without the files that a class needs."""
    held = ", ".join(sorted(path.name for path in files.folder.iterdir() if path.name in _KNOWN))
    raise CheckpointError(
        f"{files.folder} holds no {TOKENIZER}{'' if wanted == TOKENIZER else f', nor {wanted}'}, which {name} reads "
        f"(found: {held or 'no tokenizer at all'}): save the tokenizer with transformers, tokenizer.save_pretrained(folder)"
    )
