"""The pictures of the tutorial have in one folder whatever a condition can be read from."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atj.machine.data_folder import read_data_folder
from atj.machine.new_job import offered
from demo.photos import CUTS, sources, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    assert write_photos(folder) == 40
    return folder


def test_each_of_forty_pictures_has_a_class_a_caption_and_a_vector(photos: Path) -> None:
    found = read_data_folder(photos)
    assert len(found.records) == len(sources()) * CUTS == 40
    assert offered(found) == ("label", "reference", "embedding", "caption")
    assert [column.width for column in found.columns if column.kind == "label"] == [4]


def test_they_are_the_same_each_time_and_no_two_of_them_are_alike(photos: Path, tmp_path: Path) -> None:
    write_photos(tmp_path)
    vectors = {path: np.load(path) for path in sorted(photos.rglob("*.npy"))}
    for path, vector in vectors.items():
        assert np.array_equal(vector, np.load(tmp_path / path.relative_to(photos)))
        with Image.open(path.with_suffix(".jpg")) as picture:
            assert picture.width == picture.height >= 64
    assert len({vector.tobytes() for vector in vectors.values()}) == 40
