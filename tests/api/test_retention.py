"""Which checkpoints stay: the newest always, and what the policy, a pin or a reader asks for."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from adapter_api.retention import Candidate, Policy, best, kept
from adapter_api.sections import CheckpointConfig, KeepBest

METRICS = st.dictionaries(st.sampled_from(["loss", "gain"]), st.floats(-1e30, 1e30), max_size=2)
CANDIDATES = st.lists(
    st.builds(Candidate, st.integers(0, 60), METRICS, st.booleans()), max_size=12, unique_by=lambda each: each.step
)
BEST = st.builds(
    lambda metric, mode, count: KeepBest(metric=metric, mode=mode, count=count),
    st.sampled_from(["loss", "gain", "other"]), st.sampled_from(["min", "max"]), st.integers(1, 4),
)  # fmt: skip
POLICIES = st.builds(Policy, st.integers(1, 5), st.none() | st.integers(1, 30), st.none() | BEST)


def losses(**by_step: float) -> list[Candidate]:
    return [Candidate(int(step[1:]), {"loss": loss}) for step, loss in by_step.items()]


RUN = losses(s10=0.5, s20=0.1, s30=0.4, s40=0.3)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), {10, 20, 30, 40}),
        (Policy(last=1), {40}),
        (Policy(last=2), {30, 40}),
        (Policy(last=9), {10, 20, 30, 40}),
        (Policy(last=1, every=20), {20, 40}),
        (Policy(last=1, best=KeepBest(metric="loss")), {20, 40}),
        (Policy(last=1, best=KeepBest(metric="loss", mode="max")), {10, 40}),
        (Policy(last=1, best=KeepBest(metric="loss", count=3)), {20, 30, 40}),
        (Policy(last=1, best=KeepBest(metric="gain")), {40}),
    ],
)
def test_a_policy_keeps(policy: Policy, expected: set[int]) -> None:
    assert kept(RUN, policy) == expected


def test_of_equals_the_earlier_are_the_best() -> None:
    assert best(losses(s10=0.2, s20=0.2, s30=0.1, s40=0.2), KeepBest(metric="loss", count=2)) == [30, 10]


@given(CANDIDATES, POLICIES, st.sets(st.integers(0, 60), max_size=2))
def test_the_newest_the_pinned_and_what_is_in_use_always_stay(
    candidates: list[Candidate], policy: Policy, in_use: set[int]
) -> None:
    staying = kept(candidates, policy, in_use)
    steps = {candidate.step for candidate in candidates}
    assert staying <= steps
    assert staying >= {candidate.step for candidate in candidates if candidate.pinned} | (in_use & steps)
    assert staying >= set(sorted(steps)[-(policy.last or 0) :])


@given(CANDIDATES, POLICIES)
def test_what_stays_is_kept_when_asked_again(candidates: list[Candidate], policy: Policy) -> None:
    staying = kept(candidates, policy)
    assert kept([each for each in candidates if each.step in staying], policy) == staying


@settings(max_examples=50)
@given(st.lists(METRICS, min_size=1, max_size=15), POLICIES)
def test_deleting_as_one_goes_keeps_the_same_as_deleting_at_the_end(
    figures: list[dict[str, float]], policy: Policy
) -> None:
    everything = [Candidate(10 * number, metrics) for number, metrics in enumerate(figures)]
    there: list[Candidate] = []
    for candidate in everything:
        there.append(candidate)
        staying = kept(there, policy)
        there = [each for each in there if each.step in staying]
    assert {each.step for each in there} == kept(everything, policy)


@given(CANDIDATES, POLICIES)
def test_the_order_of_the_candidates_does_not_matter(candidates: list[Candidate], policy: Policy) -> None:
    assert kept(candidates, policy) == kept(candidates[::-1], policy)


@given(CANDIDATES, POLICIES)
def test_without_a_number_of_newest_everything_stays(candidates: list[Candidate], policy: Policy) -> None:
    assert kept(candidates, replace(policy, last=None)) == {candidate.step for candidate in candidates}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep_every": 500}, "keep_every adds to keep_last, without which all are kept; set keep_last"),
        ({"keep_best": {"metric": "loss"}}, "keep_best adds to keep_last"),
        ({"keep_last": 1, "save_steps": 200, "keep_every": 500}, "is not a multiple of save_steps 200.*use 600"),
        ({"keep_last": 1, "keep_best": {"metric": "a b"}}, "String should match pattern"),
        ({"keep_last": 1, "keep_best": {"metric": "loss", "mode": "low"}}, "Input should be 'min' or 'max'"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CheckpointConfig.model_validate(fields)
