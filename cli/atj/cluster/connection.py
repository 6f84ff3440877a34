"""The options that name a cluster, as kubectl has them, and the connection that they make."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from atj.cluster.api_server import Cluster
from atj.completion import job_names

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Namespace of the job; by default the namespace of the context.",
        show_default=False,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Context of the kubeconfig; by default the current context.", show_default=False),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Kubeconfig file; by default $KUBECONFIG or ~/.kube/config.", show_default=False),
]
JobName = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Name of an AdapterTrainingJob.", show_default=False, autocompletion=job_names),
]


@contextmanager
def connected(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Iterator[Cluster]:
    """A cluster for as long as a command needs it.

    Raises:
        CommandError: there is none.
    """
    cluster = Cluster.connect(kubeconfig, context, namespace)
    try:
        yield cluster
    finally:
        cluster.close()
