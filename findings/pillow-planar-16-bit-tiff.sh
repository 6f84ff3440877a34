#!/bin/sh
# Pillow 12.3.0 and 13.0.0: an uncompressed TIFF in colour with 16 bits a channel whose channels are stored one after another
# (PlanarConfiguration 2) opens without an error, with neither the right values nor the right columns: each plane's 16-bit numbers
# are read as bytes, so every other column holds the low bytes. The same picture with Deflate, or with its channels interleaved,
# opens right.
#
# Seen with files that tifffile 2026.3.3 writes and reads back exactly. This script fails when both files open alike.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
for pillow in 12.3.0 13.0.0; do
  "$folder/venv/bin/pip" install --quiet "pillow==$pillow" tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
  "$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
import tifffile
from PIL import Image

picture = np.zeros((3, 4, 6), np.uint16)
picture[0], picture[1], picture[2] = 0x1234, 0x5678, 0x9ABC


def opened(compression):
    """The first row as Pillow opens it."""
    file = io.BytesIO()
    tifffile.imwrite(file, picture, photometric="rgb", planarconfig="separate", compression=compression)
    file.seek(0)
    assert (tifffile.imread(file) == picture).all(), "the file holds what was written"
    file.seek(0)
    image = Image.open(file)
    assert (image.mode, image.size) == ("RGB", (6, 4))
    return np.asarray(image)[0].tolist()


high, low = [0x12, 0x56, 0x9A], [0x34, 0x78, 0xBC]
print("Pillow", PIL.__version__)
print("  with Deflate:", opened("deflate"))
print("  uncompressed:", opened(None))
assert opened("deflate") == [high] * 6
assert opened(None) == [low, high] * 3, "both open alike"
PYTHON
done
