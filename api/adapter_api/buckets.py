"""PURE: the sizes of aspect-ratio buckets, and which of them a picture belongs to."""

import math
from collections.abc import Sequence

from adapter_api.data import DataParams

Size = tuple[int, int]
"""Height and width in pixels."""


def bucket_sizes(params: DataParams) -> tuple[Size, ...]:
    """Every size that samples have, from the widest to the tallest: multiples of the step that use the area best.

    For each height, the largest width that keeps the area at or below resolution x resolution and the ratio of the sides
    at or below the largest, as SDXL's own training did (arXiv 2307.01952, section 2.3). Without buckets, the square.
    """
    resolution, buckets = params.resolution, params.aspect_buckets
    if buckets is None:
        return ((resolution, resolution),)
    step, area = buckets.step, resolution * resolution
    found = set()
    short = math.ceil(resolution / math.sqrt(buckets.max_ratio) / step) * step
    for side in range(min(short, resolution // step * step), resolution + 1, step):
        other = min(area // side, int(side * buckets.max_ratio)) // step * step
        found |= {(side, other), (other, side)}
    return tuple(sorted(found))


def nearest_bucket(original: Size, sizes: Sequence[Size]) -> int:
    """Index of the size whose ratio of height to width is the most like the picture's."""
    ratio = math.log(original[0] / original[1])
    return min(range(len(sizes)), key=lambda index: abs(math.log(sizes[index][0] / sizes[index][1]) - ratio))
