"""PURE: which checkpoints stay. The agent asks it about what is committed, the trainer about its own folders."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from adapter_api.sections import CheckpointConfig, KeepBest


@dataclass(frozen=True)
class Policy:
    """What a training configuration says about keeping checkpoints."""

    last: int | None = None
    """How many of the newest; None: all."""
    every: int | None = None
    """Also steps that are a multiple of this."""
    best: KeepBest | None = None
    """Also those whose metric is best."""

    @classmethod
    def of(cls, config: CheckpointConfig) -> "Policy":
        """The policy of a configuration."""
        return cls(config.keep_last, config.keep_every, config.keep_best)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may have to go."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    pinned: bool = False
    """Whether someone has asked for it to stay."""


def kept(candidates: Sequence[Candidate], policy: Policy, in_use: Collection[int] = ()) -> frozenset[int]:
    """Steps of the candidates that stay: the newest always, and `in_use`, from which someone restores."""
    steps = sorted(candidate.step for candidate in candidates)
    if policy.last is None:
        return frozenset(steps)
    staying = set(steps[-max(policy.last, 1) :])
    staying |= {candidate.step for candidate in candidates if candidate.pinned or candidate.step in in_use}
    if policy.every is not None:
        staying |= {step for step in steps if step % policy.every == 0}
    if policy.best is not None:
        staying |= set(best(candidates, policy.best))
    return frozenset(staying)


def best(candidates: Sequence[Candidate], wanted: KeepBest) -> list[int]:
    """Steps of the best candidates, the best first."""
    sign = 1 if wanted.mode == "min" else -1
    ranked = sorted(
        (sign * candidate.metrics[wanted.metric], candidate.step)
        for candidate in candidates
        if wanted.metric in candidate.metrics
    )
    return [step for _, step in ranked[: wanted.count]]
