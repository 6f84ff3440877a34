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
    """Name of the column, unique in this list. In csv, jsonl and json files it is the name of the field."""
    kind: ColumnKind
    """What the column holds. label: the index of a class, from 0. vector: numbers separated by blanks or commas.
    embedding: the path of a .npy or .safetensors file. reference: the path of an image file."""
    width: PositiveCount | None = None
    """Number of classes, or length of the vector; by default read from the data."""
    names: Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)] | None = None
    """Names of the classes of a label, from class 0 on. sampling.rows and `atj sample` accept them instead of numbers,
    and pictures show them. By default `width` equals their number."""

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
                raise ValueError(f"{name!r} is not a name: numbers already denote classes; give class {index} a word")
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
    """Cache of latents, text states and image features, which frozen encoders compute once per picture and caption."""

    mode: Literal["auto", "on", "off"] = "auto"
    """auto: cache what is frozen and read more than once, if the disk has room. on: cache everything, or stop with an
    error. off: run the encoders in every step."""
    folder: PathText | None = None
    """Folder of the cache; by default `cache` in the output folder. Runs and nodes can share a folder."""
    uri: S3URI | None = None
    """Address s3://bucket/prefix of a shared cache, used instead of `folder`. Files are uploaded while the cache is
    built, and fetched before training starts, with the access of the output. All files at the address are fetched, so
    use one address per data set and model."""
    precision: Literal["exact", "half"] = "exact"
    """exact: store numbers as the encoders compute them; losses are the same as without a cache. half: store 16 bits
    per number, which halves the size."""
    batch_size: Annotated[PositiveCount, Field(le=4096)] = 8
    """Pictures or captions that an encoder processes at once while the cache is built."""


class AspectBuckets(ConfigModel):
    """Image sizes of several aspect ratios with about resolution x resolution pixels each.

    All images of a batch have one size.
    """

    step: PositiveCount = 64
    """Heights and widths are multiples of this number of pixels."""
    max_ratio: Annotated[PositiveReal, Field(ge=1, le=16)] = 2.0
    """Largest ratio of the longer to the shorter side."""


class DataParams(ConfigModel):
    """Where the samples are, and how they become tensors."""

    resolution: Annotated[PositiveCount, Field(le=8192)] = 1024
    """Height and width, in pixels, to which images are resized and cropped."""
    data_root_path: PathText = "/data"
    """Folder to which all paths in the pairs file are relative. Paths that leave it are refused."""
    pairs_file_path: PathText = "train.txt"
    """Pairs file, or a folder of pictures; relative to data_root_path, or absolute. In a folder, the caption of a.png
    is in a.txt, a.caption, a.json or a.png.txt."""
    format: Literal["auto", "pairs", "csv", "jsonl", "json"] = "auto"
    """Format of the pairs file. pairs: image, caption and further columns, separated by tabs. csv, jsonl: named fields;
    file_name and text are accepted for image and caption. json: a list of such objects, or a mapping of pictures to
    captions. auto: by the file's extension; pairs unless it is .csv, .jsonl or .json."""
    caption_lines: Literal["join", "first", "any"] = "join"
    """How a caption of several lines is read. join: as one text. first: only its first line. any: as alternatives, one
    of which is drawn per reading."""
    folder_repeats: Flag = True
    """Whether sub-folder names such as 10_cat have a meaning: an epoch reads their pictures 10 times, and `cat`
    replaces missing captions. Only for folders of pictures."""
    columns: Annotated[tuple[Column, ...], Field(max_length=MAX_COLUMNS)] | None = None
    """Further columns of the pairs file. By default a label column if label_to_token is set, then an embedding column
    if embed_to_token is set."""
    image_mode: Literal["RGB", "L"] = "RGB"
    """Colour mode to which images are converted: RGB, or L for greyscale."""
    background: Annotated[tuple[Level, ...], Field(min_length=3, max_length=3)] = (255, 255, 255)
    """Red, green and blue, from 0 to 255, of the background behind transparent images and reference images."""
    random_crop: Flag = False
    """Whether images are cropped at a random position instead of the centre; the UNet receives the position."""
    random_flip: Flag = False
    """Whether images are mirrored at random."""
    aspect_buckets: AspectBuckets | None = None
    """Image sizes for pictures that are not square; by default every picture is cropped to a square."""
    cache: CacheConfig = CacheConfig()
    num_workers: Annotated[Count, Field(le=256)] = 0
    """Worker processes that prepare samples, per training process; 0 prepares them in the training process."""
    verify: Literal["decode", "open", "none"] = "decode"
    """How every image is checked before the first step. decode: decode it fully. open: read its header. none: check
    only that the file exists."""

    @property
    def channels(self) -> int:
        """Channels of an image in `image_mode`."""
        return {"RGB": 3, "L": 1}[self.image_mode]


class DataConfig(ConfigModel):
    """The training data."""

    target: Literal["PairsDataset"] = "PairsDataset"
    """Kind of data set."""
    params: DataParams = DataParams()
