#!/bin/sh
# Pillow 12.3.0 and 13.0.0: a JPEG 2000 picture in colour with 16 bits a channel opens as RGB with 8 bits, and values from 65,408
# up become 0 rather than 255: white becomes black, and with an alpha channel what is opaque becomes transparent. The reduction
# rounds before it cuts off, and the sum wraps. Pictures with one channel of 16 bits open as I;16 and are right.
#
# Seen with pictures of one value that imagecodecs 2026.3.6 (OpenJPEG, lossless) writes and reads back exactly. This script fails
# when white opens as white.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
for pillow in 12.3.0 13.0.0; do
  "$folder/venv/bin/pip" install --quiet "pillow==$pillow" imagecodecs==2026.3.6 numpy==2.4.6
  "$folder/venv/bin/python" - <<'PYTHON'
import io

import imagecodecs
import numpy as np
import PIL
from PIL import Image


def opened(value, *shape):
    """The first pixel of a picture of one value, as Pillow opens it, and its mode."""
    picture = np.full((8, 8, *shape), value, np.uint16)
    encoded = imagecodecs.jpeg2k_encode(picture, level=0, codecformat="jp2", reversible=True)
    assert (imagecodecs.jpeg2k_decode(encoded) == picture).all(), "the file holds what was written"
    image = Image.open(io.BytesIO(encoded))
    return image.mode, np.asarray(image)[0, 0].tolist()


print("Pillow", PIL.__version__)
for value in (32768, 65407, 65408, 65535):
    print(f"  {value:5} of 65535 in colour opens as {opened(value, 3)}, with alpha as {opened(value, 4)}")
assert opened(65407, 3) == ("RGB", [255, 255, 255])
assert opened(65535, 3) == ("RGB", [0, 0, 0]), "white opens as white"
assert opened(65535, 4) == ("RGBA", [0, 0, 0, 0])
assert opened(65535) == ("I;16", 65535)
PYTHON
done
