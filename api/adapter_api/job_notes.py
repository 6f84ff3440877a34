"""PURE: what a valid job asks of a cluster and does not use: it is told, and not refused."""

from adapter_api.job import AdapterTrainingJob

_PARTS = ("nvidia.com/mig-", "nvidia.com/gpu.shared")
"""Resources that are a part of a GPU: instances of MIG, and what NVIDIA's device plugin calls shared GPUs. CUDA shows a process
one instance of MIG only (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/), so that a pod trains on one."""


def notes_on_job(job: AdapterTrainingJob) -> list[str]:
    """A line for each, by field; empty for most jobs."""
    spec = job.spec
    notes = []
    if spec.resources.gpus > spec.processes:
        idle = spec.resources.gpus - spec.processes
        notes.append(
            f"spec.procsPerNode: {spec.processes} of {spec.resources.gpus} GPUs train, {idle} stay{'s' * (idle == 1)} idle; "
            "set auto, or ask for fewer"
        )
    for name, quantity in spec.resources.limits.items():
        if name.startswith(_PARTS) and quantity.isdigit() and int(quantity) > 1:
            idle = int(quantity) - 1
            notes.append(
                f"spec.resources.limits[{name}]: a pod trains on one part of a GPU, {idle} of {quantity} "
                f"stay{'s' * (idle == 1)} idle; ask for 1"
            )
    return notes
