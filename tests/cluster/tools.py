"""The cluster's programs, built from pinned Go modules once and kept in a cache outside the repository."""

import fcntl
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.compilation import compile_program
from tests.cluster.errors import ClusterError
from tests.cluster.kubernetes_versions import KUBERNETES, Kubernetes, chosen

MODULES = Path(__file__).parent

# Program -> (folder of the go.mod that pins it, its main package); KUBERNETES stands for the folder of the chosen version.
SOURCES = {
    "etcd": (KUBERNETES, "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": (KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": (KUBERNETES, "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": (KUBERNETES, "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubectl": (KUBERNETES, "k8s.io/kubernetes/cmd/kubectl"),
    "kubelet": (KUBERNETES, "k8s.io/kubernetes/cmd/kubelet"),
    "kube-proxy": (KUBERNETES, "k8s.io/kubernetes/cmd/kube-proxy"),
    "kwok": ("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "coredns": ("coredns", "github.com/coredns/coredns"),
    "helm": ("helm", "helm.sh/helm/v3/cmd/helm"),
    "versitygw": ("versitygw", "github.com/versity/versitygw/cmd/versitygw"),
    "kstatus": ("kstatus", "adaptertraining.dev/tests/cluster/kstatus"),
    "kueue": ("kueue", "sigs.k8s.io/kueue/cmd/kueue"),
    "cert-manager-controller": ("cert_manager", "github.com/cert-manager/cert-manager/cmd/controller"),
    "cert-manager-cainjector": ("cert_manager", "github.com/cert-manager/cert-manager/cmd/cainjector"),
    "jobset": ("jobset", "sigs.k8s.io/jobset"),
    "kubeflow-trainer": ("kubeflow_trainer", "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager"),
}
CPU_SECONDS = {
    "etcd": 60, "kube-apiserver": 400, "kube-controller-manager": 150, "kube-scheduler": 40, "kubectl": 60, "kubelet": 120,
    "kube-proxy": 30, "kwok": 100, "coredns": 150, "helm": 120, "versitygw": 200, "kstatus": 60,
    "kueue": 480,
    "cert-manager-controller": 200, "cert-manager-cainjector": 40, "jobset": 100, "kubeflow-trainer": 100,
}  # fmt: skip
"""What compiling each takes, in the order above and with an empty cache, rounded."""
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
TESTED_WITH = (*CONTROL_PLANE, "helm", "versitygw", "kstatus")
"""What tests marked `cluster` need."""
KUBELET = (*CONTROL_PLANE, "kubelet", "kube-proxy", "coredns", "helm")

LINKER_FLAGS = "-s -w"


def default_cache() -> Path:
    """Where built programs are kept: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "adapter-training-operator" / "bin"


@dataclass(frozen=True)
class Tools:
    """Programs by name, each built when it is first asked for."""

    cache: Path
    build_processes: int | None = None
    """How many packages `go build` compiles at a time; None: one for each core."""
    kubernetes: Kubernetes = field(default_factory=chosen)
    """Which Kubernetes its programs are of."""

    def path(self, name: str) -> Path:
        """The program's file, built now if it isn't in the cache.

        Raises:
            ClusterError: Go is absent, or the build failed.
        """
        target = self.file(name)
        if not target.exists():
            with _locked(target.with_suffix(".lock")):
                if not target.exists():  # another process may have built it meanwhile
                    self._build(name, target)
        return target

    def build(self, names: tuple[str, ...]) -> None:
        """Build what is missing of these, in the order given, and say first how long that takes.

        Raises:
            ClusterError: Go is absent, or the build failed.
        """
        missing = [name for name in names if not self.file(name).exists()]
        if not missing:
            return
        _require_go(missing[0])
        minutes = max(1, sum(CPU_SECONDS[name] for name in missing) // 120)
        print(
            f"compiling {', '.join(missing)}: about {minutes} min on two cores, once; "
            f"interrupted, it goes on where it was. They are kept in {self.cache}",
            flush=True,
        )
        for name in missing:
            self.path(name)

    def has(self, name: str) -> bool:
        """Whether the program has been built."""
        return self.file(name).exists()

    def can_provide(self, names: tuple[str, ...]) -> bool:
        """Whether these are built, or Go is there to build them."""
        return shutil.which("go") is not None or all(self.file(name).exists() for name in names)

    def file(self, name: str) -> Path:
        """Where the program is, or will be."""
        module, _ = self._source(name)
        return self.cache / f"{module}-{_pins(module, self._linker_flags(name))}" / name

    def _build(self, name: str, target: Path) -> None:
        module, package = self._source(name)
        _require_go(name)
        parallel = [] if self.build_processes is None else ["-p", str(self.build_processes)]
        compile_program(
            name, package, target, [*parallel, "-trimpath", "-ldflags", self._linker_flags(name)],
            folder=MODULES / module, environment={**os.environ, "CGO_ENABLED": "0"},
        )  # fmt: skip

    def _source(self, name: str) -> tuple[str, str]:
        module, package = SOURCES[name]
        return (self.kubernetes.folder if module == KUBERNETES else module), package

    def _linker_flags(self, name: str) -> str:
        if SOURCES[name][0] != KUBERNETES:
            return LINKER_FLAGS
        # A server that is built without its version reports v0.0.0, which a chart's kubeVersion refuses.
        return f"{LINKER_FLAGS} -X k8s.io/component-base/version.gitVersion={self.kubernetes.version}"


def _require_go(name: str) -> None:
    if shutil.which("go") is None:
        raise ClusterError(
            f"{name} has to be compiled and there is no `go` on the PATH: install Go 1.26 or newer; "
            "`make test` and `make test-pure` need none"
        )


@functools.cache
def _pins(module: str, linker_flags: str) -> str:
    """A name for exactly these versions, flags and sources of our own."""
    digest = hashlib.sha256(linker_flags.encode())
    folder = MODULES / module
    for file in (folder / "go.mod", folder / "go.sum", *sorted(folder.glob("*.go"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
