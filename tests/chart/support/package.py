"""`python -m tests.chart.support.package FOLDER`: checks the chart with Helm, and writes the archive that a registry takes."""

import subprocess
import sys
from pathlib import Path

from tests.cluster.tools import Tools, default_cache
from tests.support.repository import CHART, CHART_IMAGES


def package(folder: Path, helm: Path) -> Path:
    """The archive, named by the chart's version.

    Raises:
        subprocess.CalledProcessError: Helm refuses the chart.
    """
    subprocess.run([str(helm), "lint", "--strict", "--quiet", *CHART_IMAGES, str(CHART)], check=True, stdout=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(helm), "package", str(CHART), "--destination", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(done.stdout.rpartition(": ")[2].strip())


if __name__ == "__main__":
    print(package(Path(sys.argv[1]), Tools(default_cache()).path("helm")))
