"""Where the repository keeps what tests read: configurations, CRDs, the chart."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
DIGITS = CONFIGS / "digits.yaml"
CRD = REPOSITORY / "crds" / "adaptertrainingjobs.yaml"
CHART = REPOSITORY / "charts" / "adapter-training-operator"
