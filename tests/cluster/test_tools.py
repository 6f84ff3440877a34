"""Which Kubernetes is compiled, and from what."""

from pathlib import Path

import pytest

from tests.cluster.__main__ import run
from tests.cluster.errors import ClusterError
from tests.cluster.kubernetes_versions import FOLDERS, chosen
from tests.cluster.tools import SOURCES, Tools


def test_the_newest_is_chosen_unless_the_variable_names_another() -> None:
    assert chosen({}) == chosen({"KUBERNETES": ""}) == chosen({"KUBERNETES": next(iter(FOLDERS))})
    assert [chosen({"KUBERNETES": minor}).version.rpartition(".")[0] for minor in FOLDERS] == [f"v{m}" for m in FOLDERS]


def test_a_version_that_nothing_pins_is_refused_by_naming_those_that_are_pinned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClusterError, match=r"KUBERNETES=1\.12: .*choose one of 1\.37, 1\.34"):
        chosen({"KUBERNETES": "1.12"})
    monkeypatch.setenv("KUBERNETES", "1.12")
    assert run(["build", "--for", "tests"]) == 1
    assert "KUBERNETES=1.12" in capsys.readouterr().err


def test_versions_of_kubernetes_are_kept_apart_and_share_everything_else(tmp_path: Path) -> None:
    new, old = (Tools(tmp_path, kubernetes=chosen({"KUBERNETES": minor})) for minor in FOLDERS)
    for name in SOURCES:
        of_kubernetes = (name.startswith("kube") and name != "kubeflow-trainer") or name == "etcd"
        assert (new.file(name) == old.file(name)) is not of_kubernetes, name
