"""The data of a local run: a folder that a job names is read in place; what is not there is told before anything starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapter_api.document import InvalidDocument, parse
from adapter_api.document import validate as validated
from adapter_api.job import AdapterTrainingJob
from atj.machine.local_data import on_this_machine
from atj.machine.places import places
from atj.storage.embedded_store import buckets_of, is_wanted
from atj.storage.output_folder import OutputFolder
from tests.cli.support.command import Atj, MakeJob, write_yaml
from tests.support.jobs import quickstart


def here(data: dict[str, Any] | None, **params: str) -> AdapterTrainingJob:
    plain = quickstart("here", data=data)
    plain["spec"]["training"]["data"]["params"] |= params
    document = parse(json.dumps(plain), "job.json")
    return on_this_machine(validated(AdapterTrainingJob, document), document)


def refusal(data: dict[str, Any] | None, **params: str) -> str:
    with pytest.raises(InvalidDocument) as refused:
        here(data, **params)
    (told,) = str(refused.value).splitlines()
    return told


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder of pictures in it."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("beside", [{}, {"s3": {"uri": "s3://elsewhere/digits"}}, {"pvc": {"claimName": "c"}}])
def test_every_node_reads_the_folder_itself_and_nothing_is_fetched(folder: Path, beside: dict[str, Any]) -> None:
    job = here({"folder": "photos", **beside})
    assert {place.data for place in places(job, OutputFolder(folder / "out"))} == {str(folder / "photos")}
    assert buckets_of(job) == {"checkpoints"}


def test_a_store_that_only_pods_read_data_from_does_not_matter_here() -> None:
    data = {"s3": {"uri": "s3://datasets/digits", "endpointURL": "https://s3.example"}}
    assert is_wanted(here({**data, "folder": "photos"}))


def test_data_of_object_storage_are_left_to_it() -> None:
    job = here({"s3": {"uri": "s3://datasets/digits"}})
    assert buckets_of(job) == {"checkpoints", "datasets"}


def test_the_examples_folder_names_the_command_that_writes_it() -> None:
    assert refusal({"folder": "data/digits"}) == (
        "job.json:1: spec.data.folder: data/digits is not a folder; `make example-data` writes it"
    )


def test_another_folder_that_is_not_there_is_named() -> None:
    assert "spec.data.folder: fotos is not a folder; correct the path" in refusal({"folder": "fotos"})


def test_a_table_without_a_root_is_refused_with_the_root_that_fits() -> None:
    told = refusal(None, pairs_file_path="photos")
    assert "spec.training.data.params.data_root_path: /data is not a folder; it is the default, where pods have" in told
    assert (
        "set data_root_path, or spec.data.folder, to the folder that photos is in: `.`, the working directory" in told
    )


def test_a_claim_is_no_folder_of_this_machine() -> None:
    assert "spec.data.pvc: there are no PersistentVolumeClaims on this machine" in refusal({"pvc": {"claimName": "c"}})


@pytest.mark.process
def test_a_job_trains_on_a_folder_where_it_lies(atj: Atj, job: MakeJob, dataset: Path, tmp_path: Path) -> None:
    plain = job("folder", steps=2, save_steps=2)
    del plain["spec"]["training"]["data"]["params"]["data_root_path"]
    plain["spec"]["data"] = {"folder": str(dataset), "s3": {"uri": "s3://nowhere/at-all"}}
    result = atj("run", write_yaml(tmp_path / "job.yaml", plain), "--output", tmp_path / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    assert not (tmp_path / "out" / "node-0" / "data").exists()
