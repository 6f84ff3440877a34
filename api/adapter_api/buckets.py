"""PURE: the sizes of aspect-ratio buckets, and which of them a picture belongs to."""

import math
from collections.abc import Sequence

from adapter_api.data import DataParams

Size = tuple[int, int]
"""Height and width in pixels."""


def bucket_sizes(params: DataParams) -> tuple[Size, ...]:
    """Every size that samples have, from the widest to the tallest: multiples of the step that use the area best.

    For each side, the largest other one that keeps the area at or below resolution x resolution; of these, those whose ratio
    is at or below the largest. So are SDXL's own sizes (arXiv 2307.01952, section 2.3), and kohya's (sd-scripts,
    `library/model_util.py`, make_bucket_resolutions), with a bound on the ratio in place of bounds on the sides. Without
    buckets, the square.
    """
    resolution, buckets = params.resolution, params.aspect_buckets
    if buckets is None:
        return ((resolution, resolution),)
    step, area = buckets.step, resolution * resolution
    found = set()
    for side in range(step, int(resolution * math.sqrt(buckets.max_ratio)) + 1, step):
        other = area // side // step * step
        if other and max(side, other) <= buckets.max_ratio * min(side, other):
            found |= {(side, other), (other, side)}
    return tuple(sorted(found))


def nearest_bucket(original: Size, sizes: Sequence[Size]) -> int:
    """Index of the size whose ratio of height to width is the most like the picture's."""
    ratio = math.log(original[0] / original[1])
    return min(range(len(sizes)), key=lambda index: abs(math.log(sizes[index][0] / sizes[index][1]) - ratio))
