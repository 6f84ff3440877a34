"""Jobs whose base model, or whose encodings, lie in object storage: fetched before training, verified, not made again."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from adapter_agent.staging.staged_files import upload_folder
from adapter_agent.storage.store import Store
from adapter_api.sources import staged_name
from tests.agent.support.seaweed import BUCKET, KEY, SECRET, seaweed
from tests.cli.support.command import Atj, MakeJob, Plain, write_yaml
from tests.trainer.support import tiny
from tests.trainer.support.encoded import STAGE
from tests.trainer.support.runs import losses

pytestmark = pytest.mark.process

UNET = f"s3://{BUCKET}/models/tiny"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweed(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def stored(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny UNet as diffusers saves it, and in object storage with a pickle beside it that nobody needs."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(5)
    unet = UNet2DConditionModel(**tiny.UNET, addition_embed_type="text_time", sample_size=8)
    unet.save_pretrained(folder / "unet")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        upload_folder(Store.connect(UNET, endpoint), folder)
    return folder


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture
def command(atj: Atj, tmp_path: Path) -> Atj:
    return Atj(tmp_path, {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "XDG_CACHE_HOME": str(tmp_path)})


def on(plain: Plain, endpoint: str, name: str, **unet: Any) -> Plain:
    plain["spec"]["output"] = {"s3": {"uri": f"s3://{BUCKET}/{name}", "endpointURL": endpoint}}
    params = plain["spec"]["training"]["model"]["params"]
    params["unet_config"] = {"train": False, "pretrained": UNET, "subfolder": "unet", "params": tiny.UNET, **unet}
    return plain


def test_a_model_in_object_storage_is_staged_trained_on_and_drawn_with(
    command: Atj, job: MakeJob, endpoint: str, stored: Path, tmp_path: Path
) -> None:
    file = write_yaml(tmp_path / "job.yaml", on(job("staged", steps=2, save_steps=2), endpoint, "staged"))
    result = command("run", file, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    staged, weights = tmp_path / "out/node-0/models" / staged_name(UNET) / "unet", "diffusion_pytorch_model.safetensors"
    assert {path.name for path in staged.iterdir()} == {"config.json", weights}
    assert (staged / weights).read_bytes() == (stored / "unet" / weights).read_bytes()
    checkpoint = f"s3://{BUCKET}/staged/checkpoint-2"
    drawn = command("sample", checkpoint, "--endpoint-url", endpoint, "--count", "1", "--steps", "1")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "grid.png").exists()
    kept = tmp_path / "out/node-0/output/checkpoint-2"
    files = [path.relative_to(kept).as_posix() for path in kept.rglob("*.safetensors")]
    assert not any("unet" in path for path in files), "what object storage gives back is stored again"
    assert UNET in (kept / "README.md").read_text()


def test_an_address_without_a_model_ends_the_job_before_it_trains(
    command: Atj, job: MakeJob, endpoint: str, stored: Path, tmp_path: Path
) -> None:
    plain = on(job("absent", steps=2, save_steps=1), endpoint, "absent", pretrained=f"{UNET}-typo")
    result = command("run", write_yaml(tmp_path / "job.yaml", plain), "--output", tmp_path / "out")
    assert result.returncode == 2, result.stdout
    assert (
        f"model.params.unet_config.pretrained: {UNET}-typo at {endpoint} holds no objects; correct the address"
        in " ".join(result.stderr.split())
    )
    assert "Restart" not in result.stdout


def encoding(plain: Plain, endpoint: str, name: str, tokenizer: Path) -> Plain:
    """A frozen autoencoder and a frozen text encoder, and three epochs."""
    plain = on(plain, endpoint, name)
    params = plain["spec"]["training"]["model"]["params"]
    shape = {**tiny.UNET, "in_channels": 2, "out_channels": 2, "projection_class_embeddings_input_dim": 48 + 16}
    params["unet_config"] = {"train": True, "params": shape}
    params["first_stage_config"] = STAGE
    params["text_config"] = {"encoders": [tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection")]}
    data = plain["spec"]["training"]["data"]["params"]
    data |= {"resolution": 16, "cache": {"mode": "on", "uri": f"s3://{BUCKET}/encodings"}}
    return plain


def test_a_second_job_takes_the_encodings_of_the_first_and_makes_only_what_is_damaged_anew(
    command: Atj, job: MakeJob, endpoint: str, tmp_path: Path, credentials: None
) -> None:
    tokenizer = tiny.write_tokenizer(tmp_path / "tokenizer")
    stored = Store.connect(f"s3://{BUCKET}/encodings", endpoint)
    said, found = {}, {}
    for name in ("first", "second"):
        file = write_yaml(tmp_path / f"{name}.yaml", encoding(job(name, 6, 6), endpoint, name, tokenizer))
        result = command("run", file, "--output", tmp_path / name)
        assert result.returncode == 0, result.stdout + result.stderr
        said[name] = "".join(log.read_text() for log in (tmp_path / name / "logs").glob("node-0-*.log"))
        found[name] = losses(tmp_path / name / "node-0/output")
        files = {facts.key for facts in stored.list()}
        assert len(files) == 2
        (latents,) = (path for path in files if path.startswith("latents-"))
        if name == "first":
            whole, etag = stored.get(latents)
            stored.client.put_object(Bucket=stored.bucket, Key=stored.full_key(latents), Body=whole[:-9])
            assert stored.get(latents)[1] != etag
    assert re.findall(r"encoding (\S+): \d+ of \d+ are not", said["first"]) == ["latents", "text"]
    assert re.findall(r"encoding (\S+): \d+ of \d+ are not", said["second"]) == ["latents"]
    assert f"refused, and encoded again if needed: {stored.uri_of(latents)}" in said["second"]
    assert stored.get(latents)[0] == whole
    assert found["first"] == found["second"]
    assert len(found["first"]) == 6
