"""Which extra of the distribution brings a package, so that what is missing is told by the name to install."""

from importlib.util import find_spec

EXTRAS: dict[str, frozenset[str]] = {
    "local": frozenset({
        "PIL", "accelerate", "cryptography", "diffusers", "jinja2", "matplotlib", "numpy", "peft", "prodigyopt", "prometheus_client",
        "safetensors", "tensorboard", "torch", "transformers", "wandb",
    }),
    "gpu": frozenset({"bitsandbytes"}),
    "operator": frozenset({"aiohttp", "kopf", "orjson", "prometheus_client"}),
}  # fmt: skip
"""Extra -> packages that are imported, by the names that they are imported by."""
_OURS = ("adapter_", "atj")


def extra_of(package: str) -> str | None:
    """The extra that a package belongs to, or None if it is no extra's."""
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def remedy(error: ModuleNotFoundError) -> str | None:
    """What to install, in a sentence; None where a module of our own is missing, which is a fault of ours."""
    package = (error.name or "").partition(".")[0]
    return None if not package or package.startswith(_OURS) else _remedy(package)


def _remedy(package: str) -> str:
    extra = extra_of(package)
    if extra is None:
        return f"the package {package} is missing; install this project again, with pip"
    return (
        f"the package {package} is missing; it comes with the extra {extra}: in the folder of this project's source, "
        f"`pip install '.[{extra}]'`"
    )


def require(extra: str) -> None:
    """Returns if every package of an extra is installed; imports none of them.

    Raises:
        CommandError: one is missing.
    """
    from atj.errors import refusal  # brings pydantic, which the rest does without

    for package in sorted(EXTRAS[extra]):
        if find_spec(package) is None:
            raise refusal(_remedy(package))
