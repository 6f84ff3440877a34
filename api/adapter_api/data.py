"""The data: the pairs file and its columns, how images are read, and what is kept of their encodings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from adapter_api.base import S3URI, ConfigModel, Count, Flag, Name, PathText, PositiveCount, PositiveReal, Text

MAX_COLUMNS = 64
"""Data columns besides image and caption."""
Level = Annotated[Count, Field(le=255)]
"""Of one colour of a pixel."""

ColumnKind = Literal["label", "vector", "embedding", "reference"]


class Column(ConfigModel):
    """A column of the pairs file after `image` and `caption`."""

    name: Name
    """Name, unique among its kind."""
    kind: ColumnKind
    """label: an index from 0. vector: numbers separated by blanks or commas. embedding: a .npy or .safetensors file.
    reference: an image file."""
    width: PositiveCount | None = None
    """Number of classes, or length of the vector; by default read off the data."""
    names: Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)] | None = None
    """What the classes of a label are called, from class 0 on: as good as their numbers in sampling.rows and for `atj sample`,
    and shown beside pictures. By default `width` is as many."""

    @model_validator(mode="before")
    @classmethod
    def _width_of_names(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("width") is None and isinstance(given.get("names"), list | tuple):
            return {**given, "width": len(given["names"])}
        return given

    @field_validator("names")
    @classmethod
    def _told_apart(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for index, name in enumerate(names or ()):
            if not name.strip() or name.isdecimal():
                raise ValueError(f"{name!r} is no name: numbers are classes themselves; give class {index} a word")
        if names is not None and len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r} is the name of two classes; give each one of its own")
        return names

    def class_of(self, value: object) -> int | None:
        """The class of a label that a number or name means; None if it means none."""
        if isinstance(value, str) and self.names is not None and value in self.names:
            return self.names.index(value)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


class CacheConfig(ConfigModel):
    """Latents, text states and image features, kept from what frozen encoders made of each picture and caption once."""

    mode: Literal["auto", "on", "off"] = "auto"
    """auto: what is frozen and read more than once, if the disk has room. on: all of it, or an error. off: encoders run in
    every step."""
    folder: PathText | None = None
    """Where it is kept; by default `cache` in the output folder. Runs and nodes may share one."""
    uri: S3URI | None = None
    """s3://bucket/prefix that files of it are uploaded to while it is built, and fetched from before training starts, with
    the access that the output has; in place of `folder`. Everything there is fetched: give each data set and model its own."""
    precision: Literal["exact", "half"] = "exact"
    """exact: as the encoders gave it, so that losses are the same as without. half: 16 bits a number, half the room."""
    batch_size: Annotated[PositiveCount, Field(le=4096)] = 8
    """Pictures or captions that an encoder takes at once while the cache is built."""


class AspectBuckets(ConfigModel):
    """Sizes of about resolution x resolution pixels in several aspect ratios; every batch is of one size."""

    step: PositiveCount = 64
    """Heights and widths are multiples of it."""
    max_ratio: Annotated[PositiveReal, Field(ge=1, le=16)] = 2.0
    """Largest ratio of the longer to the shorter side."""


class DataParams(ConfigModel):
    """The samples and how they become tensors."""

    resolution: Annotated[PositiveCount, Field(le=8192)] = 1024
    """Height and width in pixels that images are resized and cropped to."""
    data_root_path: PathText = "/data"
    """Folder that every path in the pairs file is relative to and must stay inside."""
    pairs_file_path: PathText = "train.txt"
    """Relative to data_root_path, or absolute. A folder stands for its pictures, with captions in files beside them: a.txt,
    a.caption or a.json of a.png, or a.png.txt."""
    format: Literal["auto", "pairs", "csv", "jsonl", "json"] = "auto"
    """pairs: image, tab, caption, tab, further columns. csv, jsonl: named fields, file_name and text as good as image and
    caption. json: a list of such objects, or captions by picture. auto: by the file's ending; pairs unless .csv, .jsonl or
    .json."""
    caption_lines: Literal["join", "first", "any"] = "join"
    """What a caption of several lines is. join: one text. first: its first line. any: alternatives; each reading draws one."""
    folder_repeats: Flag = True
    """Whether an epoch reads what is in a sub-folder such as 10_cat ten times, and takes cat for captions that are missing."""
    columns: Annotated[tuple[Column, ...], Field(max_length=MAX_COLUMNS)] | None = None
    """By default a label for label_to_token, then an embedding for embed_to_token."""
    image_mode: Literal["RGB", "L"] = "RGB"
    """Colour mode that images are converted to."""
    background: Annotated[tuple[Level, ...], Field(min_length=3, max_length=3)] = (255, 255, 255)
    """Red, green and blue from 0 to 255: what shows through transparent parts of images, reference images among them."""
    random_crop: Flag = False
    """Crop at a random place rather than at the centre; the UNet is told where."""
    random_flip: Flag = False
    """Whether images are mirrored at random."""
    aspect_buckets: AspectBuckets | None = None
    """Sizes for pictures that are not square; by default every picture is cropped to a square."""
    cache: CacheConfig = CacheConfig()
    num_workers: Annotated[Count, Field(le=256)] = 0
    """Processes that prepare samples, for each training process."""
    verify: Literal["decode", "open", "none"] = "decode"
    """What is checked of every image before the first step: all of it, its header, or only that it exists."""

    @property
    def channels(self) -> int:
        """Channels of an image in `image_mode`."""
        return {"RGB": 3, "L": 1}[self.image_mode]


class DataConfig(ConfigModel):
    """The data."""

    target: Literal["PairsDataset"] = "PairsDataset"
    """Kind, by its name in the registry."""
    params: DataParams = DataParams()
