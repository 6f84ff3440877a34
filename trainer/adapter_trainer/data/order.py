"""PURE: the sample at each position of the endless, shuffled sequence that training reads.

The sequence is the permutations of all epochs, one after another, and a run's position in it is one number: the samples
seen so far. Processes read disjoint parts of it, so the order is the same for any number of processes, and a run resumes
by continuing to count. A batch may span two epochs; no sample is dropped.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray


class Place(NamedTuple):
    """One reading of one sample. Everything random about it is a function of the seed and of this."""

    epoch: int
    position: int
    """Position within the epoch, from 0."""


class Order(Protocol):
    """Which sample is at which place."""

    @property
    def length(self) -> int:
        """Number of places in one epoch."""

    def index_at(self, place: Place) -> int:
        """Returns the index of the sample that is read at `place`."""

    def share_at(self, place: Place) -> float:
        """Returns the weight of that reading: all readings of a sample in an epoch weigh 1 together."""


@dataclass(frozen=True)
class Shuffled:
    """Reads every sample once per epoch."""

    seed: int
    samples: int

    @property
    def length(self) -> int:
        """Number of places in one epoch."""
        return self.samples

    def index_at(self, place: Place) -> int:
        """Returns the index of the sample that is read at `place`."""
        return int(permutation(self.seed, place.epoch, self.samples)[place.position])

    def share_at(self, place: Place) -> float:  # noqa: ARG002 - they are all alike
        """Returns 1, because every sample is read once."""
        return 1.0


@dataclass
class Bucketed:
    """Reads runs of `run` samples of one bucket each; samples are shuffled within buckets, and runs among each other.

    An epoch is a function of the seed and its number alone, so nothing is carried over. A bucket whose samples do not
    fill its last run repeats some of them. Each repetition is another reading, with its own noise and dropout, and each
    of them weighs less.
    """

    seed: int
    buckets: NDArray[np.int64]
    """[samples]: the bucket of each sample."""
    run: int
    _epochs: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    _readings: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    """Number of readings of each sample, by epoch."""

    @property
    def length(self) -> int:
        """Number of places in one epoch: a multiple of `run`."""
        counts = np.bincount(self.buckets)
        return int((-(-counts // self.run) * self.run).sum())

    def index_at(self, place: Place) -> int:
        """Returns the index of the sample that is read at `place`."""
        if place.epoch not in self._epochs:
            if len(self._epochs) >= 2:
                del self._epochs[min(self._epochs)]
            self._epochs[place.epoch] = self._indices(place.epoch)
        return int(self._epochs[place.epoch][place.position])

    def share_at(self, place: Place) -> float:
        """Returns one divided by the number of readings of the sample in the epoch."""
        index = self.index_at(place)
        if place.epoch not in self._readings:
            self._readings = {place.epoch: np.bincount(self._epochs[place.epoch], minlength=len(self.buckets))}
        return 1 / int(self._readings[place.epoch][index])

    @property
    def repeated(self) -> int:
        """Returns the number of readings in an epoch beyond one of each sample."""
        return self.length - len(self.buckets)

    def _indices(self, epoch: int) -> NDArray[np.int64]:
        shuffled = permutation(self.seed, epoch, len(self.buckets))
        own = self.buckets[shuffled]
        runs = []
        for bucket in np.unique(own):
            members = shuffled[own == bucket]
            runs.append(np.resize(members, -(-len(members) // self.run) * self.run).reshape(-1, self.run))
        together = np.concatenate(runs)
        generator = _philox(self.seed, "runs", (0, 0, 0, epoch))
        return together[generator.permutation(len(together))].reshape(-1)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    """Returns the order of the sample indices in one epoch, shape [samples]."""
    return _philox(seed, "order", (0, 0, 0, epoch)).permutation(samples)


def place_of(seen: int, samples: int) -> Place:
    """Returns the place that is read after `seen` samples."""
    return Place(*divmod(seen, samples))


def batches(seen: int, samples: int, batch_size: int, rank: int, world_size: int) -> Iterator[list[Place]]:
    """Yields the batches of one process, from the state after `seen` samples on, without end.

    Each round reads batch_size x world_size consecutive places, of which rank r takes the r-th run of batch_size.
    """
    start = seen + rank * batch_size
    while True:
        yield [place_of(start + offset, samples) for offset in range(batch_size)]
        start += batch_size * world_size


def generator_at(seed: int, place: Place, purpose: str) -> np.random.Generator:
    """Returns the generator of one reading of one sample. Streams of different seeds, places and purposes are independent.

    Philox (Salmon et al., SC'11) is counter-based, so any stream can be entered at no cost.
    """
    return _philox(seed, purpose, (0, 0, place.position, place.epoch))


def _philox(seed: int, purpose: str, counter: tuple[int, int, int, int]) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(_key(seed, purpose), counter=counter))  # type: ignore[arg-type]  # ISeedSequence is missing in the stubs


class _Key(ISeedSequence):
    """A generator's key, used as it is: for a bare key, NumPy asks the system for entropy, which takes longer than all draws."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> NDArray[np.uint64]:  # noqa: ARG002 - NumPy's signature
        """Returns the two 64-bit words that Philox asks for; it asks for nothing else."""
        return self.words


@lru_cache(maxsize=64)
def _key(seed: int, purpose: str) -> _Key:
    digest = hashlib.blake2b(purpose.encode(), digest_size=8).digest()
    return _Key(np.array([seed, int.from_bytes(digest, "big")], dtype=np.uint64))
