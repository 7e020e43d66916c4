"""Random tokenizers of every class, in every form in which checkpoints keep them, with flags that contradict each other."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BASE = [
    *("the", "a", "movie", "film", "was", "is", "not", "good", "bad", "great", "awful", "fine", "paris", "café", "straße"),
    *("naïve", "it", "love", "hate", "price", "this", "why", "how", "电影", "很好", "x", "y", "z", "ab"),
]
PIECES = ["##s", "##ing", "##ly", "##x", "##y", "##b", ",", ".", "!", "?", "-", "[", "]", "'", "电", "影"]
SENTENCES = [
    "The movie was GOOD, not bad!",
    "Paris is a fine café",
    "i hate this awful film . why ?",
    "电影 很好 naïve straße",
    "x-y z's ab",
]
MORE = ["[USER]", "covid", "<url>", "GOOD", "film", "Straße", "[ENT]", "@name", "very good", "##odd"]
ROBERTA = {
    **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"},
    **{"pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>"},
}


def word_piece(**switches: Any) -> Tokenizer:
    """Return BERT's usual tokenizer, with switches of its normalizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *BASE, *PIECES, "Good", "GOOD", "Paris", "cafe", "##z", "awful"]
    vocab = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**switches)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def modernbert_bytes(sentences: list[str] = SENTENCES, size: int = 400) -> Tokenizer:
    """Return byte-level BPE as of ModernBERT: NFC, runs of spaces as added tokens, ``[CLS] A [SEP] B [SEP]``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        sentences * 10, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    masked = ["|||EMAIL_ADDRESS|||", "|||IP_ADDRESS|||"]
    tokenizer.add_tokens([*(AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)), *masked, "[unused0]"])
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True, normalized=False)])
    return _with_ends(tokenizer, "[CLS]", "[SEP]")


def gemma_pieces(sentences: list[str] = SENTENCES, size: int = 500) -> Tokenizer:
    """Return BPE as of Gemma and mmBERT: spaces as ``▁``, unknown characters as bytes, ``<bos> A <eos> B <eos>``."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    runs = ["\n\n\n\n", "▁▁▁▁", "----", "...."]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator([*sentences, *runs] * 10, trainer)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    plain = [mark * count for mark in ("\n", "▁") for count in range(2, 32)] + ["<table>"]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    return _with_ends(tokenizer, "<bos>", "<eos>")


def _with_ends(tokenizer: Tokenizer, start: str, end: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}:0 $A:0 {end}:0",
        pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return tokenizer


class Maker:
    """Writes the files of one random tokenizer."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.r = random.Random(seed)
        self.folder = folder
        self.config: dict[str, Any] = {}

    def chance(self, share: float = 0.5) -> bool:
        return self.r.random() < share

    def make(self) -> str:
        """Write a tokenizer; return the family of a model that would have it."""
        kind = self.r.choice(
            ["bert", "bert", "distilbert", "electra", "roberta", "roberta", "xlm-roberta", "camembert"]
            + 2 * ["as_it_is", "modernbert"]
        )
        family = getattr(self, f"_{kind.replace('-', '_')}")()
        self._more()
        if self.chance(0.9):
            (self.folder / "tokenizer_config.json").write_text(json.dumps(self.config), encoding="utf-8")
        return family

    def _class(self, name: str, share: float = 0.8) -> None:
        if self.chance(share):
            self.config["tokenizer_class"] = name + ("Fast" if self.chance() else "")

    def _flag(self, name: str, values: tuple[Any, ...] = (True, False), share: float = 0.5) -> None:
        if self.chance(share):
            self.config[name] = self.r.choice(values)

    # WordPiece

    def _specials(self) -> dict[str, str]:
        """Return BERT's special tokens, or others."""
        usual = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
        other = {"unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>"}
        special = other if self.chance(0.3) else usual
        if special is other or self.chance():
            where = self.r.choice(["config", "map", "objects"])
            if where == "config":
                self.config |= special
            else:
                objects = {
                    name: {
                        "content": token,
                        "lstrip": name == "mask_token",
                        "normalized": False,
                        "rstrip": False,
                        "single_word": False,
                    }
                    for name, token in special.items()
                }
                text = json.dumps(objects if where == "objects" else special)
                (self.folder / "special_tokens_map.json").write_text(text, encoding="utf-8")
        self.special = special
        return special

    def _words(self) -> list[str]:
        words = [*self._specials().values(), *BASE, *PIECES, *(self.r.sample(["Good", "GOOD", "Paris", "cafe", "strasse"], 3))]
        return list(dict.fromkeys(words))

    def _word_piece(self) -> None:
        words = self._words()
        if self.chance(0.4):
            lines = [
                *words,
                *(["\u2028"] if self.chance(0.3) else []),
                *(["good\u00a0", "film \t"] if self.chance(0.2) else []),
                "tail",
            ]
            (self.folder / "vocab.txt").write_bytes("".join(line + "\n" for line in lines).encode())
        else:
            self._file(self._word_piece_tokenizer(words)).save(str(self.folder / "tokenizer.json"))
        for name in ("do_lower_case", "tokenize_chinese_chars"):
            self._flag(name)
        self._flag("strip_accents", (True, False, None))

    def _word_piece_tokenizer(self, words: list[str]) -> Tokenizer:
        special = self.special
        tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=special["unk_token"]))
        tokenizer.normalizer = normalizers.BertNormalizer(
            lowercase=self.chance(), strip_accents=self.r.choice([None, True, False]), handle_chinese_chars=self.chance(0.7)
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        cls, sep = special["cls_token"], special["sep_token"]
        ends = [(sep, words.index(sep)), (cls, words.index(cls))]
        if self.chance(0.5):
            tokenizer.post_processor = processors.BertProcessing(*ends)
        elif self.chance(0.8):
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{cls}:0 $A:0 {sep}:0", pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1", special_tokens=ends
            )
        if self.chance(0.9):
            tokenizer.add_special_tokens(list(special.values()))
        return tokenizer

    def _file(self, tokenizer: Tokenizer) -> Tokenizer:
        """Add the optional parts of a file: added tokens, padding, truncation."""
        if self.chance(0.4):
            tokenizer.add_tokens(self.r.sample(MORE, 2))
        if self.chance(0.3):
            tokenizer.enable_padding(length=32)
        if self.chance(0.3):
            tokenizer.enable_truncation(12, direction=self.r.choice(["left", "right"]))
        return tokenizer

    def _bert(self) -> str:
        self._word_piece()
        self._class("BertTokenizer")
        return "bert"

    def _distilbert(self) -> str:
        self._word_piece()
        self._class("DistilBertTokenizer")
        return self.r.choice(["bert", "distilbert"]) if "tokenizer_class" in self.config else "distilbert"

    def _electra(self) -> str:
        self._word_piece()
        self._class("ElectraTokenizer")
        return "electra"

    # byte-level BPE

    def _bpe_tokenizer(self) -> Tokenizer:
        self.special = dict(ROBERTA)
        space = self.chance()
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if self.chance(0.2) else None))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet() if self.chance(0.8) else []
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        tokenizer.train_from_iterator(
            SENTENCES * 10,
            trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
        )
        if self.chance(0.8):
            tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=space)
        return tokenizer

    def _roberta(self) -> str:
        tokenizer = self._bpe_tokenizer()
        if self.chance(0.3):
            tokenizer.model.save(str(self.folder))
        else:
            self._file(tokenizer).save(str(self.folder / "tokenizer.json"))
        self._flag("add_prefix_space")
        self._flag("trim_offsets", share=0.2)
        self._class("RobertaTokenizer")
        return "roberta"

    # Unigram

    def _unigram_tokenizer(self, names: list[str]) -> Tokenizer:
        letters = sorted(set("".join(SENTENCES)) - {" "})
        pieces = ["▁the", "▁movie", "▁was", "▁good", "▁bad", "▁film", "ing", "ly", "▁Paris", "▁is", "▁", *letters]
        vocab = [(name, 0.0) for name in names] + [(piece, -1.0 - i / 10) for i, piece in enumerate(dict.fromkeys(pieces))]
        tokenizer = Tokenizer(models.Unigram(vocab, unk_id=names.index("<unk>")))
        if self.chance(0.4):
            tokenizer.normalizer = self.r.choice([normalizers.NFKC(), normalizers.Lowercase()])
        scheme = self.r.choice(["always", "never", "first"])
        space = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        tokenizer.pre_tokenizer = (
            space if self.chance(0.3) else pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
        )
        tokenizer.decoder = decoders.Metaspace()
        bos, eos = names.index("<s>"), names.index("</s>")
        if self.chance(0.8):
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
            )
        tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
        self.special = dict(ROBERTA)
        return tokenizer

    def _xlm_roberta(self) -> str:
        names = ["<s>", "<pad>", "</s>", "<unk>", *(["<mask>"] if self.chance() else [])]
        self._file(self._unigram_tokenizer(names)).save(str(self.folder / "tokenizer.json"))
        self._flag("add_prefix_space", share=0.3)
        self._class("XLMRobertaTokenizer")
        return "xlm-roberta"

    def _camembert(self) -> str:
        names = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
        self._file(self._unigram_tokenizer(names)).save(str(self.folder / "tokenizer.json"))
        self._class("CamembertTokenizer")
        return "camembert"

    def _file_as_it_is(self) -> Tokenizer:
        kind = self.r.randrange(3)
        if kind == 0:
            return self._word_piece_tokenizer(self._words())
        return self._bpe_tokenizer() if kind == 1 else self._unigram_tokenizer(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])

    def _as_it_is(self) -> str:
        self._file(self._file_as_it_is()).save(str(self.folder / "tokenizer.json"))
        self.config["tokenizer_class"] = self.r.choice(["PreTrainedTokenizerFast", "TokenizersBackend"])
        self._flag("do_lower_case", share=0.3)
        self._flag("add_prefix_space", share=0.3)
        if self.chance():
            self.config |= self.special
        return self.r.choice(["bert", "roberta", "electra"])

    def _modernbert(self) -> str:
        """Write a tokenizer.json that is used as it is, whatever class and switches the config names."""
        made = self.r.choice([modernbert_bytes, gemma_pieces])()
        if self.chance(0.2):
            made.post_processor = processors.Sequence([])
        self._file(made).save(str(self.folder / "tokenizer.json"))
        names = ["PreTrainedTokenizer", "TokenizersBackend", "GemmaTokenizer", "RobertaTokenizer", "BertTokenizer", "Unknown"]
        self._class(self.r.choice(names))
        for switch in ("add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case", "clean_up_tokenization_spaces"):
            self._flag(switch, share=0.3)
        self.special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        if made.token_to_id("<bos>"):
            self.special = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "mask_token": "<mask>"}
        self.config |= self.special if self.chance(0.8) else {}
        return "modernbert"

    # parts of any class

    def _more(self) -> None:
        if self.chance(0.3):
            self.config["model_input_names"] = self.r.choice(
                [["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]]
            )
        if self.chance(0.5):
            self.config[self.r.choice(["model_max_length", "model_max_length", "max_len"])] = self.r.choice(
                [8, 12, 17, 30, 10**30]
            )
        self._flag("truncation_side", ("left", "right"), share=0.3)
        self._flag("split_special_tokens", share=0.1)
        tokens = self.r.sample(MORE, 3)
        how = self.r.randrange(10)
        if how == 0:
            (self.folder / "added_tokens.json").write_text(json.dumps({token: 500 + i for i, token in enumerate(tokens)}))
        elif how == 1:
            self.config["added_tokens_decoder"] = {
                str(600 - i): {
                    "content": token,
                    "lstrip": self.chance(),
                    "normalized": self.chance(),
                    "rstrip": self.chance(),
                    "single_word": self.chance(0.3),
                    "special": self.chance(),
                }
                for i, token in enumerate([*tokens, *self.special.values()] if self.chance() else tokens)
            }
        elif how == 2:
            self.config[self.r.choice(["additional_special_tokens", "extra_special_tokens"])] = tokens
        elif how == 3:
            self.config["extra_special_tokens"] = {"user_token": tokens[0], "link": tokens[1]}
        elif how == 4:
            kind = {"__type": "AddedToken"} if self.chance() else {}  # without it transformers ignores the object
            self.config["entity_token"] = tokens[0] if self.chance() else {"content": tokens[0], "lstrip": True, **kind}
        elif how == 5:
            self.config |= {"extra_special_tokens": {"user_token": tokens[0]}, "additional_special_tokens": tokens[1:]}
        elif how == 6:
            self.config["model_specific_special_tokens"] = {"user_token": tokens[0]}
            self._map({"word_token": tokens[1]} if self.chance() else {})
        elif how == 7:
            self.config |= self.r.choice([{}, {"extra_special_tokens": tokens[:1]}, {"extra_special_tokens": []}])
            further = self.r.choice([tokens[1:], {"user_token": tokens[2]}, [{"content": tokens[1], "rstrip": True}]])
            self._map({"extra_special_tokens": further})
        elif how == 8:
            self.config |= self.r.choice([{}, {"additional_special_tokens": tokens[:1]}, {"extra_special_tokens": []}])
            self._map({"additional_special_tokens": tokens[1:]})

    def _map(self, entries: dict[str, Any]) -> None:
        """Add entries to special_tokens_map.json."""
        path = self.folder / "special_tokens_map.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(found | entries), encoding="utf-8")


def random_text(r: random.Random) -> str:
    """Return a random text of words, special and added tokens, accents, CJK, odd spaces."""
    words = [
        *BASE,
        *MORE,
        "GOOD",
        "Paris",
        "PARIS",
        "Café",
        "cafe\u0301",
        "goods",
        "movieing",
        "!",
        "...",
        "[CLS]",
        "[SEP]",
        "<s>",
        "</s>",
        "<mask>",
        "[MASK]",
        "[UNK]",
        "<unk>",
        "🙂",
        "x" * 101,
        "\u2028",
        "\u00a0",
        "ﬁne",
    ]
    count = r.choice([0, 1, 2, 4, 8, 20])
    return "".join(r.choice(words) + r.choice([" ", " ", " ", "", "  ", "\t"]) for _ in range(count))
