"""Writes a small CLIP tokenizer for text encoders that are trained from nothing: the words of the captions at hand."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def write_tokenizer(folder: Path, captions: Iterable[str], vocabulary: int = 2048, longest: int = 77) -> int:
    """Writes the tokenizer's files; returns how many tokens it knows, which a text encoder's vocab_size has to hold.

    Frequent words become one token each. Every byte is a token as well, so that no caption is unknown.

    Args:
        folder: Made if it is not there.
        captions: What the words are taken from.
        vocabulary: Tokens at most, those of the bytes among them.
        longest: Tokens of a caption, its start and end among them.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = [*letters, *(f"{letter}{WORD_END}" for letter in letters)]
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    # As CLIPTokenizer itself prepares text.
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary - len(known) - 2, 0), end_of_word_suffix=WORD_END, initial_alphabet=[],
        show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(captions, trainer)
    learned = json.loads(learner.to_str())["model"]
    tokens = dict.fromkeys([*known, *learned["vocab"], START, END])
    tokenizer = CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(merge) for merge in learned["merges"]],
        model_max_length=longest,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
