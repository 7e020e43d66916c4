"""From texts to logits for an engine that takes token ids: the same way for every peer, as well as it can be done simply.

All texts are tokenized at once by the ``tokenizers`` library, sorted by length, cut into batches and padded to the longest
of each; the logits are put back into the order of the texts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from fusedbert.engine.errors import ArtifactError, InputError

from .batches import Batch


class TextBatches:
    """A tokenizer that cuts texts into batches.

    Example:
        >>> batches = TextBatches.read(Path("artifacts/sst2-mini"))  # doctest: +SKIP
        >>> batches.run(contender.logits, ["fine", "awful"], batch_size=8, max_length=128).shape  # doctest: +SKIP
        (2, 2)
    """

    def __init__(self, tokenizer: Tokenizer, *, pad_id: int) -> None:
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._max_length: int | None = None  # that the tokenizer cuts at; None before the first texts
        self._changing = threading.Lock()
        tokenizer.no_padding()  # of its own, to a fixed length in some files

    @classmethod
    def read(cls, folder: Path) -> TextBatches:
        """Read ``tokenizer.json`` and the padding id of ``config.json``.

        Raises:
            ArtifactError: One of the files cannot be read.
        """
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            pad_id = json.loads((folder / "config.json").read_bytes()).get("pad_token_id")
        except Exception as error:  # tokenizers raises no narrower class
            raise ArtifactError(f"{folder} cannot be read as a tokenizer ({error}): export the checkpoint again") from None
        return cls(tokenizer, pad_id=pad_id if isinstance(pad_id, int) else 0)

    def encode(self, texts: Sequence[str], *, max_length: int) -> list[Encoding]:
        """Tokenize texts, each cut at ``max_length`` tokens."""
        # Only where it changes: the tokenizer refuses to be changed while another thread is in it.
        with self._changing:
            if max_length != self._max_length:
                self._tokenizer.enable_truncation(max_length)
                self._max_length = max_length
        return self._tokenizer.encode_batch(list(texts))

    def pad(self, rows: Sequence[Encoding]) -> Batch:
        """Lay out tokenized texts as one batch, padded on the right to the longest."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        ids = np.full(shape, self._pad_id, np.int64)  # [batch, tokens]
        mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for index, row in enumerate(rows):
            length = len(row.ids)
            ids[index, :length], mask[index, :length], types[index, :length] = row.ids, 1, row.type_ids
        return Batch(input_ids=ids, attention_mask=mask, token_type_ids=types)

    def run(
        self,
        logits: Callable[[Batch], NDArray[np.float32]],
        texts: Sequence[str],
        *,
        batch_size: int,
        max_length: int,
    ) -> NDArray[np.float32]:
        """Compute the logits of texts, float32 [texts, labels], in their order.

        Args:
            logits: The engine.
            texts: One text at least.
            batch_size: Texts that run together, at most.
            max_length: Tokens at which a text is cut.

        Raises:
            InputError: There is no text.
        """
        if not texts:
            raise InputError("there are no texts to run: give one or more")
        rows = self.encode(texts, max_length=max_length)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
        parts = [
            logits(self.pad([rows[index] for index in order[start : start + batch_size]]))
            for start in range(0, len(order), batch_size)
        ]
        found = np.concatenate(parts)
        result = np.empty_like(found)  # [texts, labels]
        result[order] = found
        return result
