"""Images without a registry: one of static busybox, and a Debian base for Dockerfiles."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import packages
from tests.cluster.errors import ClusterError

BUSYBOX = "localhost/busybox:1"
DEBIAN = "localhost/debian"
RELEASE = "bookworm"

# The image is the pods' pause image too: started without arguments, it sleeps. Busybox must keep its name to do so.
BUSYBOX_CONTAINERFILE = """\
FROM scratch
COPY bin /bin
CMD ["/bin/busybox", "sleep", "infinity"]
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
    storage = ["--root", folder / "storage", "--runroot", folder / "storage-run", "--storage-driver", "vfs"]
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
