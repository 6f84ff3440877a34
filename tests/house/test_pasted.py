"""Every block of commands of the README and the documents works as pasted, in a fresh clone, or says why it is not."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.tools import Tools
from tests.house.support.pages import HERE, ON_A_CLUSTER, PAGES, Block, blocks_of, name_of
from tests.support.repository import REPOSITORY, repository_files

SHORT = {
    r"\bmax_train_steps: \d+": "max_train_steps: 4",
    r"\bsave_steps: \d+": "save_steps: 4",
    r"\blr_warmup_steps: \d+": "lr_warmup_steps: 1",
    r"\bsteps: \d+": "steps: 2",
}
"""How the clone's examples are cut: whether they work does not depend on how long they train."""
SYSTEM, RELEASE, CRD = "ato-system", "ato", "adaptertrainingjobs.adaptertraining.dev"


def shortened(configuration: str) -> str:
    lasting = "max_train_steps" if "max_train_steps" in configuration else "num_train_epochs"
    text = configuration.replace(f"{lasting}:", "max_train_steps:")
    for long, short in SHORT.items():
        text = re.sub(long, short, text)
    return text


def pages_with(mark: str) -> list[Path]:
    return [page for page in PAGES if any(block.mark == mark for block in blocks_of(page))]


def paste(block: Block, clone: Path, environment: Mapping[str, str]) -> None:
    """Runs the block as one would who pastes it, and fails where a command of it does."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block.text], cwd=clone, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{block.text}\n\nended with {done.returncode}:\n{done.stdout[-6000:]}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files and nothing else, as `make install` leaves them: with the environment of these tests."""
    folder = tmp_path_factory.mktemp("clone")
    for file in repository_files():
        target = folder / file.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for file in (folder / "configs").glob("*.yaml"):
        file.write_text(shortened(file.read_text()))
    environment = folder / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "lib64", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (environment / name).symlink_to(Path(sys.prefix) / name)
    for stamp in (".bootstrapped", ".installed"):
        (environment / stamp).touch()
    return folder


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """A shell's in which `.venv` is active."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    modules = os.pathsep.join(str(clone / name) for name in ("api", "operator", "trainer", "agent", "cli"))
    path = f"{clone / '.venv' / 'bin'}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": modules, "NO_COLOR": "1", "WANDB_MODE": "offline"}


@pytest.mark.process
@pytest.mark.parametrize("page", pages_with(HERE), ids=name_of)
def test_what_a_page_says_works_as_pasted(page: Path, clone: Path, environment: dict[str, str]) -> None:
    for block in blocks_of(page):
        if block.mark == HERE:
            paste(block, clone, environment)


@pytest.fixture
def with_cluster(
    control_plane: ControlPlane, cluster_tools: Tools, environment: dict[str, str]
) -> Iterator[dict[str, str]]:
    """The same, with kubectl and helm for a cluster on which nothing of ours is installed, before and afterwards."""
    programs = os.pathsep.join(str(cluster_tools.path(name).parent) for name in ("kubectl", "helm"))
    variables = {**environment, "KUBECONFIG": str(control_plane.kubeconfig)}
    variables["PATH"] = f"{programs}{os.pathsep}{variables['PATH']}"
    control_plane.kubectl("delete", "crd", CRD, "--ignore-not-found")
    yield variables
    helm = [str(cluster_tools.path("helm")), "uninstall", RELEASE, "-n", SYSTEM, "--ignore-not-found"]
    subprocess.run(helm, env=variables, check=True, capture_output=True)
    control_plane.kubectl("delete", "crd", CRD, "--ignore-not-found")
    control_plane.kubectl("delete", "secret", "s3-credentials", "-n", "default", "--ignore-not-found")


@pytest.mark.cluster
@pytest.mark.parametrize("page", pages_with(ON_A_CLUSTER), ids=name_of)
def test_what_a_page_says_of_clusters_works_as_pasted(
    page: Path, clone: Path, with_cluster: dict[str, str], control_plane: ControlPlane
) -> None:
    for block in blocks_of(page):
        if block.mark != ON_A_CLUSTER:
            continue
        paste(block, clone, with_cluster)
        if "helm install" in block.text:
            # KWOK plays the webhook's pods, and they answer nothing.
            control_plane.kubectl(
                "delete", "validatingwebhookconfiguration", f"--selector=app.kubernetes.io/instance={RELEASE}"
            )
            control_plane.wait_for_crd(CRD)
