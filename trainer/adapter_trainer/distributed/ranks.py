"""Ranks that follow the nodes: global rank 0 is on node 0, whose agent commits and tells how far the run is."""

from collections.abc import Mapping

from adapter_api.launch import INDEX_VARIABLE


def by_node(environment: Mapping[str, str]) -> dict[str, str]:
    """PURE: the variables to change so that this process's rank counts by its node's index; none outside of torchrun.

    torchrun numbers nodes by the text of their addresses, in which 10.0.0.10 comes before 10.0.0.9. Any other numbering
    is as good to torch as long as processes meet at a store that torchrun's agents serve, and no rank has to.
    """
    index = environment.get(INDEX_VARIABLE, "")
    serves = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not serves or not index.isdecimal() or int(index) >= int(environment.get("GROUP_WORLD_SIZE", "1")):
        return {}
    rank = str(int(index) * int(environment["LOCAL_WORLD_SIZE"]) + int(environment["LOCAL_RANK"]))
    return {"GROUP_RANK": index, "RANK": rank, "ROLE_RANK": rank}
