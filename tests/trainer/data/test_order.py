"""The order of samples depends on the seed and the samples seen, on nothing else."""

import hashlib
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adapter_trainer.data.order import Bucketed, Place, Shuffled, batches, generator_at, place_of


@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 1000), samples=st.integers(1, 200))
def test_an_epoch_reads_every_sample_once(seed: int, epoch: int, samples: int) -> None:
    order = Shuffled(seed, samples)
    read = [order.index_at(Place(epoch, position)) for position in range(order.length)]
    assert sorted(read) == list(range(samples))


@given(world_size=st.sampled_from([1, 2, 3, 4, 6, 12]), samples=st.integers(1, 50), seen=st.integers(0, 500))
def test_any_number_of_processes_reads_the_same_samples_in_each_round(world_size: int, samples: int, seen: int) -> None:
    each = 12 // world_size
    ranks = [list(islice(batches(seen, samples, each, rank, world_size), 5)) for rank in range(world_size)]
    rounds = [[place for rank in ranks for place in rank[number]] for number in range(5)]
    assert rounds == [[place_of(seen + 12 * number + offset, samples) for offset in range(12)] for number in range(5)]


@given(
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
    run=st.integers(1, 5),
    buckets=st.lists(st.integers(0, 4), min_size=1, max_size=60),
)
def test_a_bucketed_epoch_reads_every_sample_in_runs_of_one_bucket(
    seed: int, epoch: int, run: int, buckets: list[int]
) -> None:
    order = Bucketed(seed, np.array(buckets, np.int64), run)
    read = [order.index_at(Place(epoch, position)) for position in range(order.length)]
    assert set(read) == set(range(len(buckets)))
    runs = [read[start : start + run] for start in range(0, len(read), run)]
    assert all(len({buckets[index] for index in each}) == 1 for each in runs)
    assert len(read) - len(buckets) <= len(set(buckets)) * (run - 1)
    again = Bucketed(seed, np.array(buckets, np.int64), run)
    assert [again.index_at(Place(epoch, position)) for position in reversed(range(order.length))] == read[::-1]


@given(stop=st.integers(0, 20), samples=st.integers(1, 30))
def test_a_run_that_stopped_continues_the_sequence(stop: int, samples: int) -> None:
    whole = list(islice(batches(0, samples, 4, 0, 1), 25))
    assert list(islice(batches(4 * stop, samples, 4, 0, 1), 25 - stop)) == whole[stop:]


def test_randomness_is_a_function_of_seed_place_and_purpose() -> None:
    def draw(seed: int, place: Place, purpose: str) -> tuple[float, ...]:
        return tuple(generator_at(seed, place, purpose).random(4))

    assert draw(1, Place(2, 3), "sample") == draw(1, Place(2, 3), "sample")
    others = {
        draw(1, Place(2, 3), "sample"),
        draw(2, Place(2, 3), "sample"),
        draw(1, Place(3, 3), "sample"),
        draw(1, Place(2, 4), "sample"),
        draw(1, Place(3, 2), "sample"),
        draw(1, Place(2, 3), "picture"),
    }
    assert len(others) == 6


def test_what_a_reading_draws_stays_so_that_runs_can_be_continued_by_later_versions() -> None:
    """Philox with the seed and the purpose's BLAKE2b as its key, and the place as its counter."""
    purpose = int.from_bytes(hashlib.blake2b(b"sample", digest_size=8).digest(), "big")
    plain = np.random.Generator(np.random.Philox(key=np.array([7, purpose], np.uint64), counter=[0, 0, 5, 2]))
    drawn = generator_at(7, Place(epoch=2, position=5), "sample")
    assert drawn.standard_normal((2, 3, 5), np.float32).tobytes() == b"".join(
        plain.standard_normal((3, 5), np.float32).tobytes() for _ in range(2)
    )
    assert drawn.integers(1000) == plain.integers(1000)
