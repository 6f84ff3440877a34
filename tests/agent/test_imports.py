"""What each command of the agent imports: it runs beside training, in every pod."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

EVERY = {
    "torch",
    "numpy",
    "diffusers",
    "transformers",
    "kubernetes",
    "aiohttp",
    "adapter_api.job",
    "adapter_api.status",
}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("adapter_agent.__main__", {"boto3", "prometheus_client", "adapter_agent.commands.sync"}),
        ("adapter_agent.commands.train", {"boto3", "prometheus_client"}),
        ("adapter_agent.commands.sync", {"adapter_agent.commands.restore"}),
        (
            "adapter_agent.commands.restore",
            {"prometheus_client", "adapter_agent.syncing.serve", "adapter_agent.syncing.pipeline"},
        ),
    ],
    ids=["command line", "train", "sync", "restore"],
)
def test_a_command_imports_its_own_libraries_alone(modules: str, absent: set[str]) -> None:
    program = f"import sys, {modules}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert not (EVERY | absent) & set(done.stdout.split())
