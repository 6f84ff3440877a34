"""Entry point of `atj` and `kubectl-atj`: the commands, and the boundary at which errors become messages."""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from atj import checkpoint_changes, checkpoint_checks, checkpoints, jobs
from atj.boundary import explain
from atj.export import export_command
from atj.job_logs import logs_command
from atj.job_wait import wait_command
from atj.plan import plan_command
from atj.run import run_command
from atj.sample import sample_command
from atj.validate import validate_command

DISTRIBUTION = "adapter-training-operator"

app = typer.Typer(
    name="atj",
    help="Train Stable Diffusion XL adapters from one AdapterTrainingJob.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 something failed, 2 something for you to change, 130 interrupted.",
)
stored = typer.Typer(no_args_is_help=True, help="List, fetch, verify, compare, pin and delete committed checkpoints.")
stored.command("list")(checkpoints.list_command)
stored.command("get")(checkpoints.get_command)
stored.command("verify")(checkpoint_checks.verify_command)
stored.command("diff")(checkpoint_checks.diff_command)
stored.command("pin")(checkpoint_changes.pin_command)
stored.command("unpin")(checkpoint_changes.unpin_command)
stored.command("delete")(checkpoint_changes.delete_command)
stored.command("prune")(checkpoint_changes.prune_command)

HERE, ON_A_CLUSTER, RESULTS = "On this machine", "On a cluster", "Results"

app.command("run", rich_help_panel=HERE)(run_command)
app.command("validate", rich_help_panel=HERE)(validate_command)
app.command("plan", rich_help_panel=HERE)(plan_command)
app.command("submit", rich_help_panel=ON_A_CLUSTER)(jobs.submit_command)
app.command("list", rich_help_panel=ON_A_CLUSTER)(jobs.list_command)
app.command("describe", rich_help_panel=ON_A_CLUSTER)(jobs.describe_command)
app.command("logs", rich_help_panel=ON_A_CLUSTER)(logs_command)
app.command("wait", rich_help_panel=ON_A_CLUSTER)(wait_command)
app.command("suspend", rich_help_panel=ON_A_CLUSTER)(jobs.suspend_command)
app.command("resume", rich_help_panel=ON_A_CLUSTER)(jobs.resume_command)
app.command("scale", rich_help_panel=ON_A_CLUSTER)(jobs.scale_command)
app.command("delete", rich_help_panel=ON_A_CLUSTER)(jobs.delete_command)
app.add_typer(stored, name="checkpoints", rich_help_panel=RESULTS)
app.command("sample", rich_help_panel=RESULTS)(sample_command)
app.command("export", rich_help_panel=RESULTS)(export_command)


def _print_version(is_wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if is_wanted:
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
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Options that come before the command."""


def run() -> None:
    """Runs the command in `sys.argv` and ends the process with its exit code."""
    # Taken out here, so that it may also stand behind the command, where it is usually wanted.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except Exception as error:  # noqa: BLE001 - the boundary
        sys.exit(explain(error, debug=debug))


if __name__ == "__main__":
    run()
