"""Models: only what training loads is staged, each byte verified; what is missing is said with its field."""

import os
from pathlib import Path

import pytest

from adapter_agent.errors import BucketMissing, CredentialsRefused, Damaged, EndpointUnreachable, NothingThere
from adapter_agent.staging import models, staged_files
from adapter_agent.storage import ranges
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_api.model import ModelParams
from adapter_api.sources import StoredModel, staged_name, stored_models, with_staged_models
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.node import safetensors

SDXL = [
    "model_index.json", "sd_xl_base_1.0.safetensors", "README.md", "scheduler/scheduler_config.json",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin", "unet/model.onnx", "unet/model.onnx_data",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "vae_1_0/config.json",
    "vae_1_0/diffusion_pytorch_model.safetensors", "text_encoder/config.json", "text_encoder/model.safetensors",
    "text_encoder/flax_model.msgpack", "text_encoder/openvino_model.bin", "text_encoder_2/config.json",
    "text_encoder_2/model-00001-of-00002.safetensors", "text_encoder_2/model-00002-of-00002.safetensors",
    "text_encoder_2/model.safetensors.index.json", "text_encoder_2/model.fp16-00001-of-00002.safetensors",
    "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer_2/vocab.json", "tokenizer_2/merges.txt",
]  # fmt: skip
NEEDED = {
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json", "text_encoder/model.safetensors",
    "text_encoder_2/config.json", "text_encoder_2/model-00001-of-00002.safetensors",
    "text_encoder_2/model-00002-of-00002.safetensors", "text_encoder_2/model.safetensors.index.json",
    "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer_2/vocab.json", "tokenizer_2/merges.txt",
    "scheduler/scheduler_config.json",
}  # fmt: skip
UNET = StoredModel(uri="s3://bucket/unet", field="model.params.unet_config.pretrained")


def pipeline(**parts: object) -> tuple[StoredModel, ...]:
    return stored_models(
        ModelParams.model_validate({"pretrained_model_name_or_path": "s3://bucket/sdxl", **parts})
    )  # fmt: skip


def objects(*keys: str) -> list[ObjectFacts]:
    return [ObjectFacts(key, 1, "etag") for key in keys]


def needed(there: list[str], wanted: tuple[StoredModel, ...]) -> set[str]:
    return {facts.key for facts in models.needed_files(objects(*there), wanted, "s3://bucket/sdxl at here")}


def test_of_a_published_pipeline_only_what_training_loads_is_needed() -> None:
    assert needed(SDXL, pipeline()) == NEEDED


def test_what_conditions_begin_with_is_staged_whole_and_named_by_its_field() -> None:
    params = ModelParams.model_validate({
        "adapters_config": {"style": {"pretrained": "s3://bucket/base"}},
        "unet_config": {"lora": {"pretrained": "s3://bucket/loras/ink.safetensors"}},
        "token_conditioners": {"label_to_token": {"pretrained": "s3://bucket/base"}, "embed_to_token": {"pretrained": "here"}},
    })  # fmt: skip
    stored = stored_models(params)
    assert {each.field for each in stored} == {
        "model.params.adapters_config.style.pretrained",
        "model.params.token_conditioners.label_to_token.pretrained",
        "model.params.unet_config.lora.pretrained",
    }
    there = ["ip_adapter.safetensors", "label_to_token.safetensors", "README.md", "unet/config.json"]
    assert needed(there, stored) == {"ip_adapter.safetensors", "label_to_token.safetensors"}
    with pytest.raises(
        NothingThere, match=r"holds no \.safetensors file in its topmost folder; upload what `atj export`"
    ):
        needed(["README.md"], stored)
    local = with_staged_models(params, "/models")
    folder = f"/models/{staged_name('s3://bucket/base')}"
    assert local.unet_config.lora is not None
    low_rank = local.unet_config.lora.pretrained
    assert low_rank == f"/models/{staged_name('s3://bucket/loras/ink.safetensors')}/ink.safetensors"
    assert local.adapters_config["style"].pretrained == folder
    tokens = local.token_conditioners
    assert [each and each.pretrained for each in (tokens.label_to_token, tokens.embed_to_token)] == [folder, "here"]


def test_a_variant_takes_the_place_of_the_usual_weights_in_its_part_alone() -> None:
    other = "unet/diffusion_pytorch_model.fp16.safetensors"
    expected = (NEEDED - {"unet/diffusion_pytorch_model.safetensors"}) | {other}
    assert needed(SDXL, pipeline(unet_config={"variant": "fp16"})) == expected


def test_a_part_with_a_source_of_its_own_is_not_fetched_from_the_pipeline() -> None:
    found = needed(SDXL, pipeline(first_stage_config={"pretrained": "madebyollin/sdxl-vae-fp16-fix"}))
    assert found == {key for key in NEEDED if not key.startswith("vae/")}


def test_every_model_of_a_configuration_is_found_by_its_field() -> None:
    encoder = {"pretrained": "s3://bucket/text", "tokenizer": "s3://bucket/words/", "tokenizer_subfolder": "t"}
    found = stored_models(
        ModelParams.model_validate({
            "unet_config": {"pretrained": "s3://bucket/unet"}, "first_stage_config": {"pretrained": "hub/vae"},
            "text_config": {"encoders": [encoder]}, "image_encoder_config": {"pretrained": "s3://bucket/clip"},
        })
    )  # fmt: skip
    assert {(each.field, each.uri, each.holds, each.folder) for each in found} == {
        ("model.params.unet_config.pretrained", "s3://bucket/unet", "weights", ""),
        ("model.params.text_config.encoders[0].pretrained", "s3://bucket/text", "weights", ""),
        ("model.params.text_config.encoders[0].tokenizer", "s3://bucket/words", "tokenizer", "t"),
        ("model.params.image_encoder_config.pretrained", "s3://bucket/clip", "weights", ""),
    }


@pytest.mark.parametrize(
    ("there", "wanted", "message"),
    [
        pytest.param([], pipeline(), "holds no objects; correct the address, or upload", id="nothing"),
        pytest.param(
            ["unet/config.json"],
            pipeline(),
            "holds no model_index.json, so it is not a pipeline; name the",
            id="pipeline",
        ),
        pytest.param(["a.safetensors"], (UNET,), "holds no config.json in its topmost folder; name", id="config"),
        pytest.param(
            ["config.json", "diffusion_pytorch_model.bin"],
            (UNET,),
            "holds no safetensors weights in its topmost folder, only: diffusion_pytorch_model.bin; upload",
            id="pickle",
        ),
        pytest.param(
            ["config.json", "diffusion_pytorch_model.safetensors"],
            (UNET.model_copy(update={"variant": "fp16"}),),
            "holds no safetensors weights of variant fp16 in its topmost folder, only: diffusion_pytorch_model.safe",
            id="variant",
        ),
        pytest.param(
            ["config.json"],
            (UNET.model_copy(update={"holds": "tokenizer", "folder": "words"}),),
            "holds no tokenizer in folder words: one of tokenizer.json, tokenizer_config.json, vocab.json",
            id="tokenizer",
        ),
    ],
)
def test_what_is_missing_is_said(there: list[str], wanted: tuple[StoredModel, ...], message: str) -> None:
    with pytest.raises(NothingThere) as caught:
        needed(there, wanted)
    assert str(caught.value).startswith(f"s3://bucket/sdxl at here {message}")


@pytest.fixture
def unet(store: Store, tmp_path: Path) -> StoredModel:
    """A model of twenty megabytes, uploaded with its digests."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (source / "diffusion_pytorch_model.safetensors").write_bytes(safetensors(os.urandom(20 * 2**20)))
    (source / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04")
    staged_files.upload_folder(store, source)
    return UNET.model_copy(update={"uri": store.uri})


def test_a_model_is_fetched_once_and_only_what_changed_again(unet: StoredModel, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    assert models.stage([unet], folder, lambda _: store) == 2
    weights = folder / staged_name(store.uri) / "diffusion_pytorch_model.safetensors"
    assert weights.read_bytes() == (tmp_path / "source" / weights.name).read_bytes()
    assert models.stage([unet], folder, lambda _: store) == 0
    weights.write_bytes(b"spoilt")
    assert models.stage([unet], folder, lambda _: store) == 1
    assert weights.stat().st_size > 2**20


def test_an_interrupted_file_is_gone_on_with(
    unet: StoredModel, store: Store, through: Store, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "RANGE_TRIES", 1)
    monkeypatch.setattr(ranges, "STREAM_BYTES", ranges.RANGE_BYTES)
    folder, last = tmp_path / "models", 2 * ranges.RANGE_BYTES
    proxy.rule = lambda request: "lose" if request.first == last else "pass"
    with pytest.raises(EndpointUnreachable, match=r"unet_config\.pretrained: .*diffusion_pytorch_model"):
        models.stage([unet], folder, lambda _: through)
    (partial,) = (folder / staged_name(store.uri)).glob(".diffusion*.partial")
    assert partial.stat().st_size == last
    proxy.rule = lambda _: "pass"
    proxy.log.clear()
    assert models.stage([unet], folder, lambda _: through) == 1
    assert [each.first for each in proxy.log if each.method == "GET" and each.key.endswith(".safetensors")] == [last]


def test_bytes_that_are_not_what_was_uploaded_are_refused(unet: StoredModel, store: Store, tmp_path: Path) -> None:
    key = "diffusion_pytorch_model.safetensors"
    other = safetensors(b"another model's weights")
    found = store.head(key)
    assert found is not None
    store.client.put_object(Bucket=store.bucket, Key=store.full_key(key), Body=other, Metadata=dict(found.metadata))
    with pytest.raises(Damaged, match=r"^model\.params\.unet_config\.pretrained: .* its content is damaged: SHA-256"):
        models.stage([unet], tmp_path / "models", lambda _: store)
    assert not (tmp_path / "models" / staged_name(store.uri) / key).exists()


def test_weights_that_are_no_safetensors_are_refused(store: Store, tmp_path: Path) -> None:
    store.put("config.json", b"{}")
    store.put("diffusion_pytorch_model.safetensors", b"\x80\x04\x95 a pickle with another name")
    with pytest.raises(Damaged, match="its content is not what its name says"):
        models.stage([UNET.model_copy(update={"uri": store.uri})], tmp_path, lambda _: store)


def test_an_address_that_cannot_be_read_is_named_with_its_field(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = UNET.model_copy(update={"uri": "s3://no-such-bucket/unet"})
    with pytest.raises(BucketMissing, match=r"^model\.params\.unet_config\.pretrained: s3://no-such-bucket/unet at"):
        models.stage([lost], tmp_path, lambda uri: Store.connect(uri, endpoint))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(CredentialsRefused, match=r"^model\.params\.unet_config\.pretrained: .* secret key is wrong"):
        models.stage([UNET], tmp_path, lambda uri: Store.connect(uri, endpoint))


def test_the_marker_of_a_models_own_folder_is_no_file(store: Store, tmp_path: Path) -> None:
    for key in ("config.json", "diffusion_pytorch_model.safetensors"):
        store.put(key, b"{}" if key.endswith("json") else safetensors(b"weights"))
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/")
    assert models.stage([StoredModel(uri=store.uri, field=UNET.field)], tmp_path, lambda _: store) == 2


def test_a_single_file_is_fetched_alone(store: Store, tmp_path: Path) -> None:
    content = safetensors(b"weights")
    store.put("base.safetensors", content)
    store.put("other.safetensors", b"not asked for")
    model = StoredModel(uri=f"{store.uri}/base.safetensors", field="model.params.pretrained_model_name_or_path")
    connected: list[str] = []

    def connect(uri: str) -> Store:
        connected.append(uri)
        return store

    assert models.stage([model], tmp_path, connect) == 1
    assert connected == [store.uri]
    folder = tmp_path / staged_name(model.uri)
    assert (folder / "base.safetensors").read_bytes() == content
    assert not (folder / "other.safetensors").exists()
    assert models.stage([model], tmp_path, connect) == 0
    absent = model.model_copy(update={"uri": f"{store.uri}/absent.safetensors"})
    with pytest.raises(NothingThere, match=r"absent\.safetensors at .* is not there; correct the address"):
        models.stage([absent], tmp_path, connect)
