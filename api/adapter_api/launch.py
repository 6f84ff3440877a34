"""PURE: (job, attempt, node) -> the commands and environment of one node; the cluster and a laptop use the same.

A node runs three commands: `restore` to its end, then `sync` beside `train`. Rendezvous is torchrun's c10d backend
(https://docs.pytorch.org/docs/stable/elastic/run.html): node 0 says itself that it hosts the store, because its own
name may not resolve yet, and every node announces the address that others reach it at.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from adapter_api.layout import MODELS_FOLDER, OUTPUT_FOLDER, TRAINING_FILE
from adapter_api.sources import StoredModel, stored_models

if TYPE_CHECKING:  # trainers and agents, which read the names alone, are spared the models of a job
    from adapter_api.job import AdapterTrainingJob
    from adapter_api.places import OutputLocation, S3Access, S3Location
    from adapter_api.sections import CheckpointConfig

PROCESS_RESTARTS = 3
"""Times that torchrun restarts crashed processes in place before the node fails and the whole gang is replaced.

One crash may count several times: the process itself, its peers that lose it, and peers that lose those in the rendezvous
that follows.
"""
RENDEZVOUS_TIMEOUT_SECONDS = 3600
"""How long nodes wait for each other. Long: one of them may still be fetching a model and data when the first is done."""

JOB_VARIABLE = "ADAPTER_TRAINING_JOB"
"""Environment variable that holds the job's name."""
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""Environment variable that holds the node's index, as Kubernetes calls it in the pods of an Indexed Job."""
BEGIN_VARIABLE = "ADAPTER_TRAINING_BEGIN_FILE"
"""Environment variable that names a file: training processes that are started beside `restore` touch no folder before it
exists. In a pod they are started after it."""
EPOCHS_A_SECOND = 2_000_000
"""More than a job has attempts, and than the 100,000 of builds before, whose claims in storage are thereby lower. Until 2112
an epoch is an integer that every reader of JSON has exactly (below 2**53)."""
NODES_ARGUMENT = "--nnodes="
"""torchrun's argument for how many nodes there are: what a pod was launched with, which no label can change."""
IS_HOST = "is_host="
"""The rendezvous option by which node 0 says that it hosts the store."""

CREDENTIALS_PREFIX = "ADAPTER_TRAINING_"
"""ADAPTER_TRAINING_DATA_AWS_ACCESS_KEY_ID and so on: credentials of a place that is read with others than the output."""

CREDENTIALS_FOLDER = "/var/run/secrets/adaptertraining.dev/output"
"""Where the Secret of `output.s3.secretRef` is mounted beside training: its files change with it, variables do not."""


@dataclass(frozen=True)
class NodePlace:
    """Where one node runs and which folders it has to itself."""

    index: int | None
    """From 0; the node of index 0 hosts the rendezvous and commits checkpoints. None: the pods of an Indexed Job share
    one template, so arguments hold $(JOB_COMPLETION_INDEX), which Kubernetes replaces, and `resolved` does the rest."""
    rendezvous_host: str
    rendezvous_port: int
    address: str
    """Where the other nodes reach this one."""
    work: str
    """Folder of this node: training.yaml is in it, output/ will be."""
    data: str
    """Folder that data is staged to, or mounted at."""
    agent_port: int = 0
    """Port on `address` that the agent serves /progress and /metrics on; 0 takes a free one."""
    threads: int | None = None
    """CPU threads of each training process."""
    python: str = "python"


@dataclass(frozen=True)
class Command:
    """One process: its argument vector, never a shell line, and what it finds in its environment."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeLaunch:
    """The three commands of a node."""

    restore: Command
    sync: Command
    train: Command


def launch(job: "AdapterTrainingJob", run_id: str, attempt: int, place: NodePlace) -> NodeLaunch:
    """The commands of node `place.index` in attempt `attempt` (from 1) of the run `run_id` (a job's UID in a cluster)."""
    env = {
        JOB_VARIABLE: job.metadata.name,
        "ADAPTER_TRAINING_RUN_ID": run_id,
        "ADAPTER_TRAINING_ATTEMPT": str(attempt),
    }
    if place.index is not None:
        env[INDEX_VARIABLE] = str(place.index)
    return NodeLaunch(
        restore=Command(_agent(job, "restore", attempt, place), {**env}),
        sync=Command(_agent(job, "sync", attempt, place), {**env}),
        train=Command(_torchrun(job, run_id, attempt, place), {**env, **_threads(place)}),
    )


def epoch(created: datetime, attempt: int) -> int:
    """The attempt's number that storage is claimed with in a cluster.

    A job that is deleted and created again counts its attempts anew, but writes to the same place: the later one has
    the higher epoch. Times of creation are whole seconds, and the operator launches nothing in the second of a job's
    creation: of several that are created in one, only the last comes to have attempts.
    """
    return int(created.timestamp()) * EPOCHS_A_SECOND + attempt


def attempt_number(epoch: int) -> int:
    """Of an attempt within its job, from 1; outside a cluster, epochs are these numbers themselves."""
    return epoch % EPOCHS_A_SECOND


def supervised(train: Command, place: NodePlace, grace_seconds: int) -> Command:
    """The command of a pod's main container: the agent runs the trainer, and ends only after the commit.

    Told to stop, it ends within `grace_seconds` and says what had not been committed by then.
    """
    argv = (
        place.python, "-m", "adapter_agent", "train",
        f"--node={_index(place)}",
        f"--work={place.work}",
        f"--rendezvous={place.rendezvous_host}:{place.rendezvous_port}",
        f"--grace-seconds={grace_seconds}",
        "--",
        *train.argv,
    )  # fmt: skip
    return Command(argv, train.env)


def resolved(argv: tuple[str, ...], index: int) -> tuple[str, ...]:
    """The arguments of a launch for index None, once the index is known: whether this node hosts the rendezvous."""
    return tuple(argument.replace(f"{IS_HOST}{_UNRESOLVED}", f"{IS_HOST}{_truth(index)}") for argument in argv)


_UNRESOLVED = "unresolved"


def _truth(index: int) -> str:
    return "true" if index == 0 else "false"


def _threads(place: NodePlace) -> dict[str, str]:
    return (
        {} if place.threads is None else {"OMP_NUM_THREADS": str(place.threads), "MKL_NUM_THREADS": str(place.threads)}
    )


def _torchrun(job: "AdapterTrainingJob", run_id: str, attempt: int, place: NodePlace) -> tuple[str, ...]:
    is_host = _UNRESOLVED if place.index is None else _truth(place.index)
    data = ("--data_root_path", place.data) if job.spec.data is not None else ()
    is_staged = bool(stored_models(job.spec.training.model.params))
    models = ("--staged_models", f"{place.work}/{MODELS_FOLDER}") if is_staged else ()
    return (
        place.python, "-m", "torch.distributed.run",
        f"{NODES_ARGUMENT}{job.spec.nodes}",
        f"--nproc-per-node={job.spec.processes}",
        "--rdzv-backend=c10d",
        f"--rdzv-id={run_id}-{attempt}",
        f"--rdzv-endpoint={place.rendezvous_host}:{place.rendezvous_port}",
        f"--rdzv-conf={IS_HOST}{is_host},join_timeout={RENDEZVOUS_TIMEOUT_SECONDS}",
        f"--local-addr={place.address}",
        f"--max-restarts={PROCESS_RESTARTS}",
        # Its own limit would kill the processes while they still save what a stop is given time for.
        f"--shutdown-timeout={job.grace_seconds}",
        "-m", "adapter_trainer.train",
        "--config", f"{place.work}/{TRAINING_FILE}",
        "--output_dir", f"{place.work}/{OUTPUT_FOLDER}",
        "--resume_from_checkpoint", "latest",
        # Deleting is the agent's: it alone knows what has been committed.
        "--keep_last", "all",
        *data,
        *models,
    )  # fmt: skip


def _index(place: NodePlace) -> str:
    return f"$({INDEX_VARIABLE})" if place.index is None else str(place.index)


def _agent(job: "AdapterTrainingJob", verb: str, attempt: int, place: NodePlace) -> tuple[str, ...]:
    spec = job.spec
    argv = [place.python, "-m", "adapter_agent", verb]
    argv += [f"--attempt={attempt}", f"--node={_index(place)}", f"--nodes={spec.nodes}"]
    argv += [f"--world-size={spec.world_size}", f"--work={place.work}"]
    argv += _location("output", spec.output.s3)
    if (cache := spec.training.data.params.cache.uri) is not None:
        argv += [f"--cache-uri={cache}", *_access("cache", spec.output.s3)]
    argv += _writing(spec.output.s3)
    if verb == "restore":
        if spec.data is not None and spec.data.s3 is not None:
            argv += [*_location("data", spec.data.s3), f"--data-dir={place.data}"]
        argv += _models(job)
        if spec.resume_from is not None:
            argv += _location("resume", spec.resume_from)
            if spec.resume_from.step is not None:
                argv.append(f"--resume-step={spec.resume_from.step}")
    else:
        argv.append(f"--listen={place.address}:{place.agent_port}")
        argv += _retention(spec.training.checkpoint)
    return tuple(argv)


def _retention(config: "CheckpointConfig") -> list[str]:
    if config.keep_last is None:
        return []
    options = [f"--keep-last={config.keep_last}", f"--deletion-delay-seconds={config.deletion_delay_seconds}"]
    if config.keep_every is not None:
        options.append(f"--keep-every={config.keep_every}")
    if (best := config.keep_best) is not None:
        options.append(f"--keep-best={best.metric}:{best.mode}:{best.count}")
    return options


def _models(job: "AdapterTrainingJob") -> list[str]:
    models = stored_models(job.spec.training.model.params)
    if not models:
        return []
    return [*(f"--model={_json(model)}" for model in models), *_access("models", job.spec.models or job.spec.output.s3)]


def _json(model: StoredModel) -> str:
    """Kubernetes would put the value of a variable, perhaps a secret's, in place of $(NAME)."""
    return model.model_dump_json(exclude_defaults=True).replace("$", "\\u0024")


def _location(role: str, location: "S3Location") -> list[str]:
    return [f"--{role}-uri={location.uri}", *_access(role, location)]


def _access(role: str, access: "S3Access") -> list[str]:
    options = []
    if access.endpoint_url is not None:
        options.append(f"--{role}-endpoint-url={access.endpoint_url}")
    if access.region is not None:
        options.append(f"--{role}-region={access.region}")
    if access.addressing_style is not None:
        options.append(f"--{role}-addressing-style={access.addressing_style.lower()}")
    if access.requester_pays:
        options.append(f"--{role}-requester-pays")
    return options


def _writing(output: "OutputLocation") -> list[str]:
    """What requests that write to the output's store, output and encodings, are like."""
    options = [] if output.conditional_writes else ["--no-conditional-writes"]
    if output.checksums != "SHA256":
        options.append(f"--checksums={output.checksums}")
    if (encryption := output.server_side_encryption) is not None:
        options.append(f"--encryption={encryption.algorithm}")
        if encryption.kms_key_id is not None:
            options.append(f"--kms-key-id={encryption.kms_key_id}")
    return options
