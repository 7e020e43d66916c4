from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer


@pytest.fixture
def judge(tokenizer: Tokenizer) -> Any:
    """The mock's tokenizer as transformers runs it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")
