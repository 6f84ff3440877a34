"""`atj init` writes a job that fits what lies in a folder, and is valid at once."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from adapter_api.document import InvalidDocument, read, validate
from adapter_api.job import AdapterTrainingJob
from adapter_trainer.errors import InvalidData
from atj.errors import CommandError
from atj.machine.init import For, init_command
from atj.machine.validate import validate_command
from tests.support.repository import REPOSITORY

COUNT = 6


def picture(path: Path, size: tuple[int, int] = (80, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    number = sum(path.name.encode()) % 200
    Image.new("RGB", size, (number, 255 - number, 90)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(COUNT):
        picture(tmp_path / "photos" / f"photo-{number}.png", (80 + number, 60)).with_suffix(".txt").write_text(
            f"picture number {number}\n"
        )
    return tmp_path / "photos"


def made(data: Path, out: Path, wanted: For = For.all, **options: Any) -> AdapterTrainingJob:
    """The job that the command writes; it has to pass `atj validate`, which opens the data."""
    options = {"sdxl": False, "name": None, "force": False, **options}
    init_command(data=data, wanted=wanted, out=out, **options)
    validate_command(out)
    return validate(AdapterTrainingJob, read(out))


def columns(job: AdapterTrainingJob) -> dict[str, tuple[str, int | None]]:
    return {column.name: (column.kind, column.width) for column in job.spec.training.data.params.columns or ()}


@pytest.mark.parametrize("sdxl", [False, True], ids=["tiny", "sdxl"])
def test_pictures_alone_are_their_own_references(photos: Path, tmp_path: Path, *, sdxl: bool) -> None:
    job = made(photos, tmp_path / "job.yaml", For.reference, sdxl=sdxl)
    params = job.spec.training.model.params
    assert params.adapters_config["style"].column == "image"
    assert params.unet_config.train is not sdxl
    assert (params.pretrained_model_name_or_path is not None) is sdxl
    assert job.spec.training.data.params.pairs_file_path == "."
    assert len(job.spec.training.sampling.rows) == COUNT
    assert all(Path(str(row["image"])).is_file() for row in job.spec.training.sampling.rows)
    assert not list(photos.glob("atj-init*"))


@pytest.mark.process  # transformers ask the loader of shared libraries
def test_captions_beside_pictures_get_a_text_encoder_and_a_tokenizer_of_their_words(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = made(Path("photos"), Path("job.yaml"), For.caption)
    (encoder,) = job.spec.training.model.params.text_config.encoders
    assert encoder.tokenizer == "job-tokenizer"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "job-tokenizer")
    assert len(tokenizer) == encoder.params.vocab_size
    assert tokenizer.tokenize("Picture ÜBER 猫")[0] == "picture</w>"
    assert tokenizer.decode(tokenizer("über 猫").input_ids, skip_special_tokens=True).strip() == "über 猫"
    assert tokenizer.model_max_length == encoder.params.max_position_embeddings
    assert job.spec.training.sampling.rows[0] == {"caption": "picture number 0"}


def test_a_folder_for_each_class_gives_labels_with_names(tmp_path: Path) -> None:
    for name in ("cat", "dog: big", "no"):
        for number in range(2):
            picture(tmp_path / "data" / name / f"{number}.jpg")
    job = made(tmp_path / "data", tmp_path / "job.yaml", For.label)
    assert columns(job) == {"label": ("label", 3)}
    assert "0 cat, 1 dog: big, 2 no" in (tmp_path / "job.yaml").read_text()
    assert [row["label"] for row in job.spec.training.sampling.rows] == ["cat", "dog: big", "no"]
    lines = [json.loads(line) for line in (tmp_path / "data" / "atj-init.jsonl").read_text().splitlines()]
    assert lines[2] == {"image": "dog: big/0.jpg", "caption": "", "label": 1}


def test_files_beside_pictures_give_embeddings_and_references(tmp_path: Path) -> None:
    for number in range(COUNT):
        image = picture(tmp_path / "data" / f"{number}.png")
        np.save(image.with_suffix(".npy"), np.arange(4, dtype=np.float32))
        picture(tmp_path / "data" / "references" / f"{number}.jpg")
    job = made(tmp_path / "data", tmp_path / "job.yaml")
    assert columns(job) == {"embedding": ("embedding", None), "reference": ("reference", None)}
    params = job.spec.training.model.params
    assert params.adapters_config["style"].column == "reference"
    assert params.token_conditioners.embed_to_token is not None
    with (tmp_path / "data" / "0.npy").open("rb"):
        (tmp_path / "data" / "0.npy").unlink()
    with pytest.raises(CommandError, match=r"5 of 6 pictures have a file for embedding; .*0\.png has none"):
        made(tmp_path / "data", tmp_path / "job.yaml", force=True)


def test_a_table_s_columns_are_read_off_its_values(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with (picture(data / "a.png").parent / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "text", "digit", "place", "picture_of", "note", "id"])
        for number in range(COUNT):
            picture(data / f"{number}.png")
            row = [f"{number}.png", f"text {number}", number % 3, f"{number} 0.5", "a.png", f"unique {number}", number]
            writer.writerow(row)
    job = made(data, tmp_path / "job.yaml")
    assert columns(job) == {"digit": ("label", 3), "place": ("vector", 2), "picture_of": ("reference", None)}
    assert job.spec.training.data.params.pairs_file_path == "metadata.csv"
    text = (tmp_path / "job.yaml").read_text()
    assert "not used: note: holds text such as 'unique 0'" in text
    assert "not used: id: holds whole numbers" in text
    assert job.spec.training.sampling.rows[0]["place"] == (0.0, 0.5)


def test_classes_in_words_are_numbered_in_a_table_of_ours(tmp_path: Path) -> None:
    data = tmp_path / "data"
    lines = []
    for number in range(COUNT):
        picture(data / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "caption": "x", "Kind!": ["cat", "dog"][number % 2]}))
    (data / "train.jsonl").write_text("\n".join(lines))
    job = made(data, tmp_path / "job.yaml", For.label)
    assert columns(job) == {"kind": ("label", 2)}
    assert job.spec.training.data.params.pairs_file_path == "atj-init.jsonl"
    assert "0 cat, 1 dog" in (tmp_path / "job.yaml").read_text()


def test_tab_separated_fields_are_named_by_what_they_hold(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = []
    for number in range(COUNT):
        picture(data / f"{number}.png")
        np.save(data / f"{number}.npy", np.zeros(3, np.float32))
        rows.append(f"{number}.png\tcaption {number}\t{number % 2}\t{number}.npy\t{number % 3}\n")
    (data / "train.txt").write_text("".join(rows))
    job = made(data, tmp_path / "job.yaml")
    assert columns(job) == {"label": ("label", 2), "embedding": ("embedding", None), "label2": ("label", 3)}


def test_what_is_asked_for_and_not_there_is_refused_with_how_to_give_it(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"--for label: .*photos has none; put the pictures of each class"):
        made(photos, tmp_path / "job.yaml", For.label)
    with pytest.raises(CommandError, match=r"--for embedding: .*\.npy or \.safetensors"):
        made(photos, tmp_path / "job.yaml", For.embedding)
    with pytest.raises(CommandError, match="is neither a folder nor a table"):
        made(tmp_path / "nothing", tmp_path / "job.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="holds no picture"):
        made(tmp_path / "empty", tmp_path / "job.yaml")


def test_a_job_that_is_there_stays_unless_it_is_forced(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    out.write_text("mine")
    with pytest.raises(CommandError, match="is there already"):
        made(photos, out, For.reference)
    assert out.read_text() == "mine"
    made(photos, out, For.reference, force=True)


def test_names_of_folders_and_files_cannot_break_the_yaml(tmp_path: Path) -> None:
    data = tmp_path / "My: photos #1 'x' {y}"
    for name in ("on", "null", "a # b", "1e5", "kätzchen"):
        picture(data / name / "p: q.png").with_suffix(".txt").write_text(f'"{name}": {{x}} # y\n')
        picture(data / name / "r.png").with_suffix(".txt").write_text(f"- {name}\n")
    job = made(data, tmp_path / "job.yaml")
    assert job.metadata.name == "my-photos-1-x-y"
    assert job.spec.data is not None
    assert job.spec.data.folder == str(data)
    assert columns(job) == {"label": ("label", 5)}


def test_what_a_run_draws_in_the_folder_is_not_trained_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    picture(photos / "atj-output" / "photos" / "node-0" / "output" / "samples" / "step-10.png")
    job = made(Path(), Path("job.yaml"), For.reference)
    assert job.spec.training.data.params.pairs_file_path == "atj-init.jsonl"
    assert len((photos / "atj-init.jsonl").read_text().splitlines()) == COUNT
    assert all(Path(str(row["image"])).is_file() for row in job.spec.training.sampling.rows)


def test_large_pictures_of_several_shapes_keep_them_for_sdxl(tmp_path: Path) -> None:
    for number, size in enumerate([(1200, 1100), (1600, 1024), (1024, 1536)]):
        picture(tmp_path / "data" / f"{number}.jpg", size)
    job = made(tmp_path / "data", tmp_path / "job.yaml", sdxl=True)
    params = job.spec.training.data.params
    assert params.resolution == 1024
    assert params.aspect_buckets is not None
    assert job.spec.resources.limits["nvidia.com/gpu"] == "1"
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["metadata"]["name"] == "data"


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".txt", "picture {}\n"),
        (".caption", "picture {}"),
        (".json", '{{"caption": "picture {}"}}'),
        (".png.txt", "\ufeffpicture {}"),
    ],
)
def test_a_table_that_is_written_keeps_captions_of_every_form(tmp_path: Path, ending: str, text: str) -> None:
    for number in range(COUNT):
        shown = picture(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png")
        shown.with_suffix(ending).write_text(text.format(number), encoding="utf-8")
    made(tmp_path / "photos", tmp_path / "job.yaml", For.label)
    records = [json.loads(line) for line in (tmp_path / "photos" / "atj-init.jsonl").read_text().splitlines()]
    assert sorted(record["caption"] for record in records) == [f"picture {number}" for number in range(COUNT)]


TABLES_OF_OTHERS: dict[str, tuple[str, str]] = {
    "a spreadsheet with semicolons": (
        "t.csv",
        "\ufeffFile_Name;Text;kind\n0.png;one, two;1\n1.png;three;0\n2.png;four;1\n;;\n",
    ),
    "Excel's own word": ("t.csv", "sep=|\nfile_name|text|kind\n0.png|one|1\n1.png|two|0\n2.png|three|1\n"),
    "tabs below a header": ("t.tsv", "image\tcaption\tkind\n0.png\tone\t1\n1.png\ttwo\t0\n2.png\tthree\t1\n"),
    "tabs below a header in text": (
        "train.txt",
        "image\tcaption\tkind\n0.png\tone\t1\n1.png\ttwo\t0\n2.png\tfour\t1\n",
    ),
    "IP-Adapter's data.json": (
        "data.json",
        json.dumps([{"image_file": f"{n}.png", "text": f"number {n}", "kind": n % 2} for n in range(3)]),
    ),
}


@pytest.mark.parametrize(("name", "text"), TABLES_OF_OTHERS.values(), ids=TABLES_OF_OTHERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_are_read_as_training_reads_them(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    for number in range(3):
        picture(tmp_path / "photos" / f"{number}.png")
    marked = text if encoding == "utf-8" else text.removeprefix("\ufeff")  # that encoding writes its own mark
    (tmp_path / "photos" / name).write_bytes(marked.encode(encoding))
    job = made(tmp_path / "photos", tmp_path / "job.yaml", For.label)
    assert job.spec.training.data.params.pairs_file_path == name
    assert columns(job) == {"kind": ("label", 2)}


def test_kohyas_captions_by_picture_are_read_without_endings(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "photos" / f"{number}.png")
    captions = {str(n): {"caption": f"number {n}", "tags": "1girl", "train_resolution": [1, 2]} for n in range(3)}
    (tmp_path / "photos" / "meta_cap.json").write_text(json.dumps(captions))
    job = made(tmp_path / "photos", tmp_path / "job.yaml", For.reference)
    assert job.spec.training.data.params.pairs_file_path == "meta_cap.json"
    assert columns(job) == {}


def test_what_would_never_be_opened_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, job = tmp_path / "photos", tmp_path / "job.yaml"
    picture(photos / "0.png")
    os.mkfifo(photos / "1.png")
    made(photos, job, For.reference)
    assert "not used: 1.png is not a regular file; replace or remove it" in capsys.readouterr().out
    os.mkfifo(photos / "0.txt")
    with pytest.raises(CommandError, match=r"0\.txt: is no plain file"):
        made(photos, tmp_path / "other.yaml", For.reference)
    os.mkfifo(photos / "train.csv")
    digits = (REPOSITORY / "configs" / "digits.yaml").read_text()
    job.write_text(digits.replace("pairs_file_path: ", "pairs_file_path: train.csv #"))
    with pytest.raises((InvalidData, InvalidDocument), match=r"train\.csv is neither a file nor a folder"):
        validate_command(job, data=photos)


def test_archives_where_pictures_are_looked_for_are_named_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").touch()
    with pytest.raises(CommandError, match=r"\.tar files \(a webdataset archive\), which are not read yet: 1"):
        made(tmp_path, tmp_path / "job.yaml")


def test_what_cannot_be_trained_on_is_left_out_and_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (photos / "photo-2.png").read_bytes()
    (photos / "photo-2.png").write_bytes(whole[:-30])
    (photos / "IMG_1.HEIC").write_bytes(b"ftypheic")
    job = made(photos, tmp_path / "job.yaml", For.reference)
    assert len((photos / "atj-init.jsonl").read_text().splitlines()) == COUNT - 1
    assert not any("photo-2" in str(row) for row in job.spec.training.sampling.rows)
    told = capsys.readouterr().out
    assert f"{photos}: not used: photo-2.png cannot be decoded: " in told
    assert f"{photos}: not used: .heic files, which are not read here (save them as PNG or JPEG): 1" in told
    assert "not used: photo-2.png cannot be decoded" in (tmp_path / "job.yaml").read_text()


def test_folders_of_kohya_s_trainers_give_classes_captions_and_repeats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for folder in ("3_cat", "1_cat", "2_big dog"):
        picture(data / folder / "a.png")
    (data / "2_big dog" / "a.caption").write_text("a dog\nthat barks\n")
    job = made(data, tmp_path / "job.yaml", For.label)
    (column,) = job.spec.training.data.params.columns or ()
    assert column.names == ("big dog", "cat")
    assert f"{data}: 6 samples of 3 pictures, label (label of 2 classes)" in capsys.readouterr().out
    lines = [json.loads(line) for line in (data / "atj-init.jsonl").read_text().splitlines()]
    assert [(line["image"], line["caption"], line["label"]) for line in lines] == [
        ("1_cat/a.png", "cat", 1),
        *[("2_big dog/a.png", "a dog that barks", 0)] * 2,
        *[("3_cat/a.png", "cat", 1)] * 3,
    ]


def test_classes_that_are_numbers_go_by_their_index(tmp_path: Path) -> None:
    for name in ("10", "7"):
        picture(tmp_path / "data" / name / "a.png")
    job = made(tmp_path / "data", tmp_path / "job.yaml", For.label)
    assert columns(job) == {"label": ("label", 2)}
    assert [row["label"] for row in job.spec.training.sampling.rows] == [0, 1]


def test_files_for_one_folder_make_jobs_of_different_names(photos: Path, tmp_path: Path) -> None:
    names = [
        made(photos, tmp_path / f"{file}.yaml", For.reference).metadata.name for file in ("job", "label", "photos")
    ]
    assert names == ["photos", "photos-label", "photos"]
    assert made(photos, tmp_path / "other.yaml", For.reference, name="mine").metadata.name == "mine"


def test_ip_adapter_s_list_of_pictures_is_a_table(tmp_path: Path) -> None:
    data = tmp_path / "data"
    samples = [{"image_file": f"{number}.png", "text": f"text {number}"} for number in range(COUNT)]
    for sample in samples:
        picture(data / sample["image_file"])
    (data / "data.json").write_text(json.dumps(samples))
    job = made(data / "data.json", tmp_path / "job.yaml", For.reference)
    assert job.spec.training.data.params.pairs_file_path == "data.json"
