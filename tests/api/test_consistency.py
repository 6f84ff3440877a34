"""Each rule across fields is broken once by the smallest change, and names the field to change."""

from typing import Any

import pytest

from adapter_api.consistency import inconsistencies
from adapter_api.document import Document, InvalidDocument, validate
from adapter_api.training import TrainingConfig

TINY_UNET = {
    "params": {
        "in_channels": 4, "out_channels": 4, "block_out_channels": [32, 64], "norm_num_groups": 8,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 64,
    }
}  # fmt: skip
ENCODER = {"params": {"hidden_size": 64}, "tokenizer": "clip"}
LABEL: dict[str, Any] = {"label_to_token": {}}


def faults(model: dict[str, Any], data: dict[str, Any] | None = None, **sections: Any) -> list[str]:
    document = Document("a.yaml", {"model": {"params": model}, "data": {"params": data or {}}, **sections})
    try:
        config = validate(TrainingConfig, document)
    except InvalidDocument as error:
        return [f"{fault.path.removeprefix('model.params.')}: {fault.message}" for fault in error.faults]
    assert inconsistencies(config) == []
    return []


@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param({"token_conditioners": LABEL}, {}, id="SDXL's own shape with labels"),
        pytest.param({"unet_config": TINY_UNET, "token_conditioners": LABEL}, {"resolution": 64}, id="a tiny UNet"),
        pytest.param(
            {"unet_config": {**TINY_UNET, "train": True}, "text_config": {"encoders": [ENCODER]}}, {}, id="text"
        ),
        pytest.param({"pretrained_model_name_or_path": "sdxl", "unet_config": {"train": True}}, {}, id="a pipeline"),
        pytest.param({"adapters_config": {"style": {}}, "image_encoder_config": {}}, {}, id="the image as reference"),
        pytest.param(
            {"adapters_config": {"digit": {"column": "label"}}},
            {"columns": [{"name": "label", "kind": "label", "width": 10}]},
            id="an adapter driven by labels",
        ),
    ],
)
def test_consistent_configurations_are_accepted(model: dict[str, Any], data: dict[str, Any]) -> None:
    assert faults(model, data) == []


@pytest.mark.parametrize(
    ("model", "data", "fault"),
    [
        pytest.param(
            {"token_conditioners": {"label_to_token": {"dropout": 0.7}}, "joint_dropout": 0.4},
            {"columns": [{"name": "digit", "kind": "label", "width": 10}]},
            "joint_dropout: one draw decides for all conditions, and their shares add up to 1.1",
            id="shares above one",
        ),
        pytest.param(
            {"token_conditioners": LABEL},
            {"columns": [{"name": "label", "kind": "label"}, {"name": "label", "kind": "vector"}]},
            "data.params.columns[1].name: 'label' is already a column; give each a name of its own",
            id="two columns of one name",
        ),
        pytest.param(
            {"token_conditioners": LABEL},
            {"columns": [{"name": "caption", "kind": "label"}]},
            "data.params.columns[0].name: 'caption' is already a column",
            id="a column named as a built-in one",
        ),
        pytest.param(
            {"token_conditioners": {"label_to_token": {"column": "x"}, "embed_to_token": {"column": "x"}}},
            {},
            "token_conditioners.embed_to_token.column: 'x' is already a column, of another kind",
            id="two implied columns of one name",
        ),
        pytest.param(
            {"token_conditioners": LABEL},
            {"columns": [{"name": "label", "kind": "label"}, {"name": "ref", "kind": "reference", "width": 3}]},
            "data.params.columns[1].width: a reference image has no width; remove it",
            id="a reference with a width",
        ),
        pytest.param(
            {"token_conditioners": LABEL},
            {"columns": []},
            "token_conditioners.label_to_token: needs a data column of kind label or vector; declare one in",
            id="a conditioner without a column",
        ),
        pytest.param(
            {"token_conditioners": {"label_to_token": {"column": "digit"}}},
            {"columns": [{"name": "label", "kind": "label"}]},
            "token_conditioners.label_to_token.column: there is no data column 'digit'; the columns are: label",
            id="a column that does not exist",
        ),
        pytest.param(
            {"token_conditioners": {"embed_to_token": {"column": "label"}}},
            {"columns": [{"name": "label", "kind": "label"}]},
            "token_conditioners.embed_to_token.column: column 'label' holds a label; embedding or vector is needed here",
            id="a column of another kind",
        ),
        pytest.param(
            {"adapters_config": {"style": {}}},
            {},
            "adapters_config.style: takes reference images, so model.params.image_encoder_config must say",
            id="references without an encoder",
        ),
        pytest.param(
            {"adapters_config": {"digit": {"column": "label", "projector": {"target": "PerceiverResampler"}}}},
            {"columns": [{"name": "label", "kind": "label"}]},
            "adapters_config.digit.projector.target: PerceiverResampler reads a sequence of image features",
            id="a resampler over one label",
        ),
        pytest.param(
            {"token_conditioners": {"label_to_token": {"train": False, "learning_rate": 1e-4}}, "unet_config": {"train": True}},
            {},
            "token_conditioners.label_to_token.learning_rate: is set for a module that is not trained",
            id="a learning rate for a frozen conditioner",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "unet_config": {"learning_rate": 1e-4}},
            {},
            "unet_config.learning_rate: is set for a module that is not trained",
            id="a learning rate for a frozen UNet",
        ),
        pytest.param(
            {"token_conditioners": {"label_to_token": {"train": False}}},
            {},
            "model.params: nothing is trained; set train: true",
            id="nothing trained",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "first_stage_config": {"target": "Pixels", "pretrained": "vae"}},
            {},
            "first_stage_config.pretrained: Pixels has no weights; remove it",
            id="weights for pixels",
        ),
        pytest.param(
            {"token_conditioners": LABEL},
            {"image_mode": "L"},
            "first_stage_config.params.in_channels: is 3, but data.params.image_mode L has 1 channels; set 1",
            id="grey images for an RGB first stage",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "first_stage_config": {"target": "Pixels"}},
            {},
            "unet_config.params.in_channels: is 4, but the first stage gives 3 channels; set 3",
            id="a UNet for other latents",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "first_stage_config": {"target": "Pixels"}},
            {},
            "unet_config.params.out_channels: is 4, but the first stage has 3 channels; set 3",
            id="a UNet that predicts other latents",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "first_stage_config": {"target": "Pixels", "patch_size": 4}},
            {},
            "unet_config.params.in_channels: is 4, but the first stage gives 48 channels (3 for each of the 4 x 4 pixels of "
            "a patch); set 48",
            id="a UNet for single pixels under patches",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "first_stage_config": {"target": "Pixels", "patch_size": 4}},
            {"image_mode": "L"},
            "unet_config.params.out_channels: is 4, but the first stage has 16 channels (1 for each of the 4 x 4 pixels of "
            "a patch); set 16",
            id="a UNet that predicts single pixels under patches",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "first_stage_config": {"patch_size": 2}},
            {},
            "first_stage_config.patch_size: AutoencoderKL has no such setting; remove it, or choose target: Pixels",
            id="patches of an autoencoder",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "first_stage_config": {"target": "Pixels", "patch_size": 4}},
            {"resolution": 72},
            "data.params.resolution: 72 is not a multiple of 16, by which first stage and UNet divide it; use 64",
            id="a resolution that patches do not divide",
        ),
        pytest.param(
            {"token_conditioners": LABEL},
            {"resolution": 1000},
            "data.params.resolution: 1000 is not a multiple of 32, by which first stage and UNet divide it; use 992",
            id="a resolution that does not divide",
        ),
        pytest.param(
            {"unet_config": TINY_UNET, "text_config": {"encoders": [ENCODER, ENCODER]}, "token_conditioners": LABEL},
            {},
            "text_config.encoders: their hidden sizes add up to 128, but model.params.unet_config.params.cross_attention_dim",
            id="encoders wider than the UNet attends to",
        ),
        pytest.param(
            {"unet_config": {**TINY_UNET, "train": True}, "text_config": {"encoders": [{"params": {"hidden_size": 64}}]}},
            {},
            "text_config.encoders[0]: needs a tokenizer",
            id="an encoder without a tokenizer",
        ),
        pytest.param(
            {"unet_config": {"train": True}},
            {},
            "model.params: has no condition at all",
            id="no condition",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "scheduler_config": {"params": {"beta_start": 0.02}}},
            {},
            "scheduler_config.params.beta_end: betas must grow from beta_start to below 1, not 0.02 to 0.012",
            id="falling betas",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "scheduler_config": {"params": {"rescale_betas_zero_snr": True}}},
            {},
            "scheduler_config.params.prediction_type: epsilon says nothing about the image at zero",
            id="epsilon at zero signal",
        ),
        pytest.param(
            {"token_conditioners": LABEL,
             "scheduler_config": {"params": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}}},
            {},
            "scheduler_config.params.timestep_spacing: leading never draws from the last step",
            id="zero signal that is never drawn from",
        ),
        pytest.param(
            {"token_conditioners": LABEL, "unet_config": {"train": True, "lora": {}}},
            {},
            "unet_config.lora: trains low-rank weights of a UNet that is itself trained",
            id="low-rank weights of a trained UNet",
        ),
        pytest.param(
            {"adapters_config": {"digit": {"column": "label", "projector": {"target": "SequenceMLP"}}}},
            {"columns": [{"name": "label", "kind": "label", "width": 10}]},
            "adapters_config.digit.projector.target: SequenceMLP reads a sequence of image features",
            id="a sequence of one label",
        ),
    ],
)  # fmt: skip
def test_a_broken_rule_names_the_field(model: dict[str, Any], data: dict[str, Any], fault: str) -> None:
    assert any(found.startswith(fault) for found in faults(model, data)), faults(model, data)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"label": 9, "caption": "nine"}, None),
        ({"label": 10}, "sampling.rows[0].label: label 10 is outside 0..9"),
        ({"label": "nine"}, "sampling.rows[0].label: column 'label' is a label; give its index"),
        (
            {"digit": 1},
            "sampling.rows[0].digit: there is no data column 'digit'; the columns are: caption, image, label",
        ),
    ],
)
def test_pictures_are_asked_for_by_columns_that_exist(row: dict[str, Any], fault: str | None) -> None:
    data = {"columns": [{"name": "label", "kind": "label", "width": 10}]}
    assert faults({"token_conditioners": LABEL}, data, sampling={"rows": [row]}) == ([fault] if fault else [])


NAMED = {"columns": [{"name": "label", "kind": "label", "names": ["cat", "dog"]}]}


@pytest.mark.parametrize(
    ("sampling", "fault"),
    [
        ({"rows": [{"label": "dog"}], "columns": [{"label": 0}, {"label": "cat"}]}, None),
        (
            {"rows": [{"label": "cow"}]},
            "sampling.rows[0].label: column 'label' is a label; give its index or name: cat, dog",
        ),
        ({"rows": [{}], "columns": [{"label": 2}]}, "sampling.columns[0].label: label 2 is outside 0..1"),
        (
            {"columns": [{"size": 2}]},
            "sampling.columns[0].size: there is no data column 'size'; the columns are: caption, image, label",
        ),
    ],
    ids=["names and numbers", "no such name", "no such class", "no such column"],
)
def test_labels_may_be_called_by_name_in_rows_and_columns(sampling: dict[str, Any], fault: str | None) -> None:
    assert faults({"token_conditioners": LABEL}, NAMED, sampling=sampling) == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        ({"kind": "label", "names": ["cat", "cat"]}, "data.params.columns[0].names: 'cat' is the name of two classes"),
        (
            {"kind": "label", "names": ["cat", "1"]},
            "data.params.columns[0].names: '1' is not a name: numbers already denote classes",
        ),
        ({"kind": "label", "names": ["cat", " "]}, "data.params.columns[0].names: ' ' is not a name"),
        ({"kind": "label", "names": ["cat"], "width": 2}, "data.params.columns[0].width: is 2, but there are 1 names"),
        ({"kind": "vector", "names": ["cat"]}, "data.params.columns[0].names: a vector has no classes; remove it"),
    ],
    ids=["twice", "a number", "blank", "another width", "no label"],
)
def test_names_are_of_the_classes_of_labels_each_another(column: dict[str, Any], fault: str) -> None:
    found = faults({"token_conditioners": {"label_to_token": {}}}, {"columns": [{"name": "label", **column}]})
    assert any(each.startswith(fault) for each in found), found


def test_a_label_with_names_has_as_many_classes() -> None:
    config = TrainingConfig.model_validate(
        {"model": {"params": {"token_conditioners": LABEL}}, "data": {"params": NAMED}}
    )
    (column,) = config.data.params.columns or ()
    assert column.width == 2
    assert [column.class_of(value) for value in ("dog", 0, "cow", True)] == [1, 0, None, None]


@pytest.mark.parametrize(
    "params",
    [
        {"block_out_channels": [32, 64, 128], "down_block_types": ["DownBlock2D"]},
        {"block_out_channels": [33, 64, 128]},
        {"addition_time_embed_dim": 512},
        {"layers_per_block": [2, 2]},
    ],
    ids=["blocks", "groups", "pooled width", "layers"],
)
def test_a_unet_that_could_not_be_built_is_refused(params: dict[str, Any]) -> None:
    assert len(faults({"token_conditioners": LABEL, "unet_config": {"params": params}})) == 1


@pytest.mark.parametrize(
    ("unet", "optimization", "fault"),
    [
        pytest.param({"train": True}, {}, None, id="a trained UNet"),
        pytest.param({}, {}, "FSDP shares out the trained UNet, and this one is frozen", id="a frozen UNet"),
        pytest.param(
            {"train": True},
            {"optimizer": {"target": "Adafactor"}},
            "FSDP needs an optimizer that treats",
            id="Adafactor",
        ),
        pytest.param({"train": True, "compile": True}, {}, "FSDP gathers weights between blocks", id="compiled blocks"),
        pytest.param({"train": True}, {"mixed_precision": "fp16"}, "FSDP does not scale losses", id="fp16"),
    ],
)
def test_fsdp_is_refused_where_it_would_not_compute_the_same(
    unet: dict[str, Any], optimization: dict[str, Any], fault: str | None
) -> None:
    found = faults(
        {"token_conditioners": LABEL, "unet_config": unet}, optimization={"parallelism": "FSDP", **optimization}
    )
    expected = [] if fault is None else [f"optimization.parallelism: {fault}"]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_encodings_in_object_storage_are_kept_in_no_other_folder_and_not_without_a_cache() -> None:
    model = {"pretrained_model_name_or_path": "sdxl", "unet_config": {"train": True}}
    uri = "s3://bucket/encodings"
    assert faults(model, {"cache": {"uri": uri}}) == []
    (folder,) = faults(model, {"cache": {"uri": uri, "folder": "/cache"}})
    assert folder.startswith("data.params.cache.folder: the agent moves only what is in the output folder; remove it")
    (off,) = faults(model, {"cache": {"uri": uri, "mode": "off"}})
    assert off.startswith("data.params.cache.uri: nothing is kept with cache.mode off; remove it, or choose")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://Bucket/sdxl", "'s3://Bucket/sdxl' is not an object storage address: write s3://bucket/prefix"),
        ("gs://bucket/sdxl", "'gs://bucket/sdxl' is neither a local folder, nor a hub name, nor an address s3://"),
    ],
)
def test_a_models_address_is_checked(name: str, message: str) -> None:
    (fault,) = faults({"pretrained_model_name_or_path": name, "unet_config": {"train": True}})
    assert fault.startswith(f"pretrained_model_name_or_path: {message}")


def test_a_pipeline_has_two_text_encoders() -> None:
    model = {"pretrained_model_name_or_path": "sdxl", "unet_config": {"train": True}}
    (fault,) = faults({**model, "text_config": {"encoders": [{}, {}, {"pretrained": "third"}]}})
    assert fault.startswith("text_config.encoders: an SDXL pipeline has two text encoders; remove the others")


@pytest.mark.parametrize("name", ["revision", "variant"])
def test_a_revision_or_variant_is_of_a_pipeline(name: str) -> None:
    pipeline = {"pretrained_model_name_or_path": "sdxl", "unet_config": {"train": True}}
    assert not faults({**pipeline, name: "fp16"})
    (fault,) = faults({"unet_config": TINY_UNET, "token_conditioners": LABEL, name: "fp16"})
    assert fault.startswith(f"{name}: is of pretrained_model_name_or_path, which is not set")
