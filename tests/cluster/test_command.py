"""`python -m tests.cluster` refuses what would surprise its user."""

from pathlib import Path

import pytest

from tests.cluster.__main__ import run


def test_up_refuses_a_folder_that_holds_other_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (tmp_path / "thesis.txt").write_text("mine")
    assert run(["--folder", str(tmp_path), "up", "--tier", "control-plane"]) == 1
    assert "choose another --folder" in capsys.readouterr().err


def test_down_leaves_a_folder_alone_that_holds_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert run(["--folder", str(tmp_path), "down"]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_images_are_loaded_only_into_a_cluster_that_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--folder", str(tmp_path), "load", "any"]) == 1
    assert "no kubelet-tier cluster is up" in capsys.readouterr().err
