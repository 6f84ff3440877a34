"""Images without a registry: one of static busybox, and a Debian base for Dockerfiles."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import packages
from tests.cluster.errors import ClusterError
from tests.support.repository import REPOSITORY

BUSYBOX = "localhost/busybox:1"
PYTHON = "localhost/python:3.11"
OPERATOR = "localhost/adapter-training-operator:test"
TRAINER = "localhost/adapter-trainer:test"
STORE = "localhost/seaweedfs:test"
DEBIAN = "localhost/debian"
RELEASE = "bookworm"

# The image is the pods' pause image too: started without arguments, it sleeps. Busybox must keep its name to do so.
BUSYBOX_CONTAINERFILE = """\
FROM scratch
COPY bin /bin
CMD ["/bin/busybox", "sleep", "infinity"]
"""

PYTHON_CONTAINERFILE = """\
FROM {base}
RUN apt-get update -qq \\
 && apt-get install -y -qq --no-install-recommends python3 python3-venv > /dev/null \\
 && rm -rf /var/lib/apt/lists/* && ln -s python3 /usr/bin/python
"""
STORE_CONTAINERFILE = """\
FROM scratch
COPY weed /weed
USER 65532:65532
ENTRYPOINT ["/weed"]
"""


def busybox(folder: Path) -> Path:
    """A docker-archive of BUSYBOX, with every applet in /bin; made in `folder`."""
    archive = folder / "busybox.tar"
    if archive.exists():
        return archive
    context = folder / "context"
    (context / "bin").mkdir(parents=True, exist_ok=True)
    program = Path("/bin/busybox")
    (context / "bin" / "busybox").write_bytes(program.read_bytes())
    (context / "bin" / "busybox").chmod(0o755)
    for applet in _run([program, "--list"]).split():
        if applet != "busybox":
            (context / "bin" / applet).symlink_to("busybox")
    (context / "Containerfile").write_text(BUSYBOX_CONTAINERFILE)
    # Storage of its own, below the folder, is removed with it.
    storage: list[str | Path] = [
        "--root",
        folder / "storage",
        "--runroot",
        folder / "storage-run",
        "--storage-driver",
        "vfs",
    ]
    _buildah([*storage, "bud", "--quiet", "--tag", BUSYBOX, context])
    _buildah([*storage, "push", "--quiet", BUSYBOX, f"docker-archive:{archive}:{BUSYBOX}"])
    return archive


def debian() -> str:
    """Debian's minimal system as an image in buildah's own storage, to be a Dockerfile's base; made once.

    Returns:
        The image's name.
    """
    packages.ensure(packages.BASE_IMAGE)
    name = f"{DEBIAN}:{RELEASE}"
    if subprocess.run(["buildah", "inspect", "--type=image", name], capture_output=True, check=False).returncode == 0:
        return name
    with tempfile.TemporaryDirectory(prefix="debian-") as folder:
        system = Path(folder) / "system"
        print(f"making {name} with debootstrap (once; kept in buildah's storage)", flush=True)
        _run(["debootstrap", "--variant=minbase", RELEASE, system])
        for package in (system / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        (Path(folder) / "Containerfile").write_text('FROM scratch\nCOPY system /\nCMD ["bash"]\n')
        _buildah(["bud", "--quiet", "--tag", name, folder])
    return name


def python() -> str:
    """Debian's minimal system with its Python 3.11, as the Dockerfile's PYTHON_BASE; made once.

    Returns:
        The image's name.
    """
    packages.ensure(packages.BASE_IMAGE)
    if _identity(PYTHON) is None:
        base = debian()
        with tempfile.TemporaryDirectory(prefix="python-") as folder:
            (Path(folder) / "Containerfile").write_text(PYTHON_CONTAINERFILE.format(base=base))
            # This machine's package sources are those that work here.
            sources = _mounts("/etc/apt", "/usr/share/keyrings")
            print(f"making {PYTHON} (once; kept in buildah's storage)", flush=True)
            _buildah(["bud", "--quiet", *sources, "--tag", PYTHON, folder])
    return PYTHON


def build(name: str, target: str, **arguments: str) -> str:
    """One of the project's images, from its Dockerfile; what has not changed is not built again.

    Returns:
        The image's identity.
    """
    given = [f"--build-arg={key}={value}" for key, value in {"PYTHON_BASE": python(), **arguments}.items()]
    print(f"building {name}", flush=True)
    trusted = _mounts("/etc/ssl/certs")
    _buildah(["bud", "--quiet", "--layers", *trusted, *given, "--target", target, "--tag", name, REPOSITORY])
    return _identity(name) or ""


def store(binary: Path) -> str:
    """An image that holds SeaweedFS's static binary and nothing else.

    Returns:
        The image's identity.
    """
    with tempfile.TemporaryDirectory(prefix="store-") as folder:
        (Path(folder) / "weed").write_bytes(binary.read_bytes())
        (Path(folder) / "weed").chmod(0o755)
        (Path(folder) / "Containerfile").write_text(STORE_CONTAINERFILE)
        _buildah(["bud", "--quiet", "--layers", "--tag", STORE, folder])
    return _identity(STORE) or ""


def _identity(image: str) -> str | None:
    command = ["buildah", "inspect", "--type=image", "--format={{.FromImageID}}", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _mounts(*folders: str) -> list[str]:
    return [f"--volume={folder}:{folder}:ro" for folder in folders if Path(folder).exists()]


def archive(image: str, file: Path) -> None:
    """Write an image of buildah's storage as a docker-archive.

    Raises:
        ClusterError: There is no such image; the message is buildah's.
    """
    _buildah(["push", "--quiet", image, f"docker-archive:{file}:{image}"])


def _buildah(arguments: Sequence[str | Path]) -> None:
    _run(["buildah", *arguments])


def _run(command: Sequence[str | Path]) -> str:
    # Chroot isolation: builds also work where a machine has no user namespaces or systemd.
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise ClusterError(f"{' '.join(map(str, command))} failed:\n{last}")
    return done.stdout
