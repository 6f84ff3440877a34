"""Where the repository keeps what tests read: configurations, CRDs, the chart."""

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
DIGITS = CONFIGS / "digits.yaml"
CRD = REPOSITORY / "crds" / "adaptertrainingjobs.yaml"
CHART = REPOSITORY / "charts" / "adapter-training-operator"
CHART_IMAGES = (
    "--set", "image.repository=registry.example/adapter-training-operator",
    "--set", "trainer.image=registry.example/adapter-trainer:0.1.0",
)  # fmt: skip
"""What the chart asks of everybody who installs it."""


def repository_files() -> list[Path]:
    """Every file of a commit with what has changed since: what git knows, and what is new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [REPOSITORY / name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
    # A source archive has no git: then every file counts that is in no hidden folder.
    everything = (path for path in REPOSITORY.rglob("*") if path.is_file())
    return [path for path in everything if not any(part.startswith(".") for part in path.parts)]
