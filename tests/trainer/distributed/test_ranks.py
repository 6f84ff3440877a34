"""Rank 0 is on node 0, whatever order torchrun gives to the nodes' addresses."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_trainer.distributed.ranks import by_node
from tests.support.ports import free_port
from tests.trainer.support import runs, tiny


def variables(index: int | None, nodes: int, processes: int, local_rank: int) -> dict[str, str]:
    found = {
        "TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": str(nodes), "LOCAL_WORLD_SIZE": str(processes),
        "LOCAL_RANK": str(local_rank), "RANK": "7", "GROUP_RANK": "7",
    }  # fmt: skip
    return found if index is None else {**found, "JOB_COMPLETION_INDEX": str(index)}


@given(st.integers(1, 6), st.integers(1, 4))
def test_every_process_gets_a_rank_of_its_own_and_node_0_has_the_first(nodes: int, processes: int) -> None:
    ranks = [
        int(by_node(variables(node, nodes, processes, local))["RANK"])
        for node in range(nodes)
        for local in range(processes)
    ]
    assert ranks == list(range(nodes * processes))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        variables(None, 2, 1, 0),
        variables(2, 2, 1, 0),
        {**variables(1, 2, 1, 0), "TORCHELASTIC_USE_AGENT_STORE": "False"},
    ],
    ids=["no torchrun", "no index", "an index of something else", "rank 0 serves the store"],
)
def test_ranks_stay_where_they_cannot_follow_the_nodes(environment: dict[str, str]) -> None:
    assert by_node(environment) == {}


@pytest.mark.process
def test_node_0_reports_and_saves_the_model_though_its_address_comes_last(tmp_path: Path) -> None:
    config = tiny.write_settings(tmp_path / "config.yaml", tiny.settings(tiny.write_data(tmp_path / "data")))
    port = free_port()
    nodes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
                "--rdzv-id=order", f"--rdzv-endpoint=127.0.0.2:{port}", f"--rdzv-conf=is_host={index == 0}".lower(),
                f"--local-addr=127.0.0.{2 - index}", "-m", "adapter_trainer.train", "--config", str(config),
                "--output_dir", str(tmp_path / f"node-{index}"),
            ],
            env={**runs.environment(), "JOB_COMPLETION_INDEX": str(index)}, stdout=subprocess.DEVNULL,
        )
        for index in (0, 1)
    ]  # fmt: skip
    assert [node.wait(runs.PATIENCE) for node in nodes] == [0, 0]
    assert (tmp_path / "node-0" / "checkpoint-3" / "metrics.json").is_file()
    assert not (tmp_path / "node-1" / "checkpoint-3" / "metrics.json").exists()
    assert list(runs.losses(tmp_path / "node-0")) == [1, 2, 3]
