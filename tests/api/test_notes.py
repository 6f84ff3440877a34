"""What a valid configuration means that its owner may not expect is said."""

import pytest

from adapter_api.document import read, validate
from adapter_api.notes import notes_on
from adapter_api.training import TrainingConfig
from tests.support.repository import CONFIGS
from tests.trainer.support import tiny

LABEL: tiny.Settings = {"token_conditioners": {"label_to_token": {}}}


def noted(**params: object) -> list[str]:
    return notes_on(tiny.configuration({"model": {"params": {**LABEL, **params}}}))


def test_sdxls_unet_at_random_is_said() -> None:
    (note,) = noted()
    assert note.startswith("model.params.unet_config: names nothing to load, so that all 2.57 billion weights")
    assert noted(unet_config={"params": {"sample_size": 64}, "train": True}) == [note]


def test_what_is_loaded_and_what_is_small_is_not() -> None:
    assert noted(pretrained_model_name_or_path="stabilityai/stable-diffusion-xl-base-1.0") == []
    assert noted(unet_config={"pretrained": "a/unet"}) == []
    assert notes_on(tiny.configuration(tiny.settings())) == []


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_configurations_need_no_note(file: object) -> None:
    document = read(CONFIGS / str(file))
    if "spec" not in document.data:
        assert notes_on(validate(TrainingConfig, document)) == []
