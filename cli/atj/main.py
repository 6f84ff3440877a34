"""Entry point of `atj` and `kubectl-atj`: the commands, and the boundary at which errors become messages."""

import os
import sys
from typing import Annotated

import typer

from atj.deferred import MARKUP, DeferredGroup, Entry

DISTRIBUTION = "adapter-training-operator"
HERE, ON_A_CLUSTER, RESULTS = "On this machine", "On a cluster", "Results"


class Commands(DeferredGroup):
    """The commands at the top."""

    entries = (
        Entry(
            "init",
            "atj.machine.init:init_command",
            "Write a commented job that trains on the pictures in a folder.",
            HERE,
        ),
        Entry("run", "atj.machine.run:run_command", "Train a job on this machine, without a cluster.", HERE),
        Entry(
            "validate",
            "atj.machine.validate:validate_command",
            "Check a job or training configuration and its data; show every fault with its path and line.",
            HERE,
        ),
        Entry(
            "plan",
            "atj.machine.plan:plan_command",
            "Predict memory, speed and time of a job from its FLOPs; loads and trains nothing.",
            HERE,
        ),
        Entry(
            "explain",
            "atj.machine.explain:explain_command",
            "Explain a field of a job, or list the fields of a section: type, default, unit, meaning.",
            HERE,
        ),
        Entry(
            "schema",
            "atj.machine.explain:schema_command",
            "Print the JSON schema of a job, with which editors check and complete files.",
            HERE,
        ),
        Entry(
            "submit",
            "atj.cluster.jobs:submit_command",
            "Check a job here, then create it on a cluster. Faults are shown with their lines.",
            ON_A_CLUSTER,
        ),
        Entry("list", "atj.cluster.jobs:list_command", "List the jobs of a cluster.", ON_A_CLUSTER),
        Entry(
            "describe",
            "atj.cluster.jobs:describe_command",
            "Show a job's state, the reason for it, its pods and its Events.",
            ON_A_CLUSTER,
        ),
        Entry(
            "logs",
            "atj.cluster.logs:logs_command",
            "Print the logs of a job's nodes, each line prefixed with its node.",
            ON_A_CLUSTER,
        ),
        Entry(
            "wait",
            "atj.cluster.wait:wait_command",
            "Wait until a job is complete. Exit code 1 if it fails or the timeout expires.",
            ON_A_CLUSTER,
        ),
        Entry(
            "suspend",
            "atj.cluster.jobs:suspend_command",
            "Suspend jobs: each saves a checkpoint and frees its pods until it is resumed.",
            ON_A_CLUSTER,
        ),
        Entry(
            "resume",
            "atj.cluster.jobs:resume_command",
            "Resume suspended jobs from their last committed checkpoint.",
            ON_A_CLUSTER,
        ),
        Entry(
            "scale",
            "atj.cluster.jobs:scale_command",
            "Change the number of nodes; a running job saves first, then continues at the new size.",
            ON_A_CLUSTER,
        ),
        Entry(
            "delete",
            "atj.cluster.jobs:delete_command",
            "Delete jobs and their pods. Their checkpoints are kept.",
            ON_A_CLUSTER,
        ),
        Entry(
            "sample",
            "atj.results.sample:sample_command",
            "Draw pictures from a checkpoint into one grid, or into one file per picture.",
            RESULTS,
        ),
        Entry(
            "export",
            "atj.results.export:export_command",
            "Export a checkpoint for other programs: adapters, low-rank weights, token conditioners, model card.",
            RESULTS,
        ),
    )


class CheckpointCommands(DeferredGroup):
    """The commands below `atj checkpoints`."""

    entries = (
        Entry(
            "list", "atj.results.checkpoints:list_command", "List the committed checkpoints of an output, newest last."
        ),
        Entry("get", "atj.results.checkpoints:get_command", "Fetch a checkpoint and verify every byte."),
        Entry(
            "verify",
            "atj.results.checks:verify_command",
            "Read every byte of a checkpoint and report files that differ from what was committed.",
        ),
        Entry(
            "diff",
            "atj.results.checks:diff_command",
            "Show how two checkpoints differ: files, metrics, configuration, tensors.",
        ),
        Entry(
            "pin",
            "atj.results.changes:pin_command",
            "Pin a checkpoint: no policy removes it, and `delete` removes it only with --force.",
        ),
        Entry(
            "unpin",
            "atj.results.changes:unpin_command",
            "Unpin a checkpoint: the job's retention policy applies to it again.",
        ),
        Entry(
            "delete",
            "atj.results.changes:delete_command",
            "Delete checkpoints: first from the index, then their files.",
        ),
        Entry(
            "prune",
            "atj.results.changes:prune_command",
            "Delete the files of checkpoints that were removed from the index. A running job does this itself.",
        ),
        Entry(
            "adopt",
            "atj.results.changes:adopt_command",
            "Rebuild a lost or damaged index from the checkpoints that verify.",
        ),
    )


app = typer.Typer(
    name="atj",
    cls=Commands,
    help="Train Stable Diffusion XL adapters from one AdapterTrainingJob.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 failure, 2 invalid input that you can correct, 130 interrupted.",
)
stored = typer.Typer(
    cls=CheckpointCommands,
    no_args_is_help=True,
    help="List, fetch, verify, compare, pin and delete committed checkpoints.",
)
app.add_typer(stored, name="checkpoints", rich_help_panel=RESULTS)


def _print_version(is_wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if is_wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"atj {version(DISTRIBUTION)}")
        except PackageNotFoundError:
            typer.echo("atj, not installed")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors; can be placed anywhere in the command.")
    ] = False,
) -> None:
    """Options that come before the command."""


def run() -> None:
    """Runs the command in `sys.argv` and ends the process with its exit code."""
    # Taken out here, so that it may also stand behind the command, where it is usually wanted.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    # Looking for them, pydantic reads the metadata of every installed package; nothing here has a use for one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app(arguments)
    except Exception as error:  # noqa: BLE001 - the boundary
        from atj.boundary import explain  # brings pydantic, which a help page does without

        sys.exit(explain(error, debug=debug))


if __name__ == "__main__":
    run()
