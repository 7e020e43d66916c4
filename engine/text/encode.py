"""Tokenizing with one error that names the text, whatever tokenizers raises: a bare Exception, or PanicException."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tokenizers import Encoding, Tokenizer

from ..errors import FusedBertError, InputError, without_panic
from .inputs import Text, Words

# Of a text with more than this many characters per token of max_length only a part is tokenized, see ``prefix``.
LONG = 32


def encode_texts(raw: Tokenizer, texts: Sequence[Text], *, offsets: bool = False) -> list[Encoding]:
    """Tokenize texts, either all of words or none; with the characters of each token only if ``offsets`` are asked for.

    Raises:
        InputError: The tokenizer fails on a text.
    """
    encode = raw.encode_batch if offsets else raw.encode_batch_fast
    try:
        return encode([_plain(text) for text in texts], is_pretokenized=_of_words(texts))
    except BaseException as error:
        return encode_each(raw, texts, error)


def encode_each(raw: Tokenizer, texts: Sequence[Text], error: BaseException) -> list[Encoding]:
    """Tokenize texts one by one after an ``error`` with all of them, to find the one at fault.

    Raises:
        InputError: The tokenizer fails on a text.
    """
    with contextlib.suppress(Exception), without_panic():  # others, such as KeyboardInterrupt, go on
        raise error
    encodings: list[Encoding] = []
    for text in texts:
        with naming(text):
            encodings += raw.encode_batch([_plain(text)], is_pretokenized=_of_words([text]))
    return encodings


def _plain(text: Text) -> str | tuple[str, str] | list[str]:
    return list(text.words) if isinstance(text, Words) else text.plain()


def _of_words(texts: Sequence[Text]) -> bool:
    return bool(texts) and isinstance(texts[0], Words)


@contextlib.contextmanager
def naming(text: Text) -> Iterator[None]:
    """Name the text on which a tokenizer fails.

    Raises:
        InputError: It did.
    """
    try:
        with without_panic():
            yield
    except (FusedBertError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"text {text.index} cannot be tokenized ({str(error) or type(error).__name__}): leave it out, or repair the "
            "checkpoint's tokenizer and export it again"
        ) from None
