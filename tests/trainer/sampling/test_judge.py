"""The judge reads real digits, and likeness tells right pairs from wrong ones."""

import pytest
import torch

from adapter_trainer.sampling.judge import Features, Judge, similarity
from demo import digits


@pytest.fixture(scope="module")
def features_and_labels() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    seen, held_out = digits.load()
    features = Features(None, torch.device("cpu"))
    of = [features.of(torch.from_numpy(each.images).float()[:, None]) for each in (seen, held_out)]
    labels = [torch.from_numpy(each.labels).long() for each in (seen, held_out)]
    return of[0], labels[0], of[1], labels[1]


def test_a_judge_reads_digits_that_it_has_not_seen(
    features_and_labels: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    seen, labels, held_out, truth = features_and_labels
    assert Judge(seen, labels).accuracy(held_out, truth) > 0.97


def test_a_judge_that_learnt_permuted_labels_guesses(
    features_and_labels: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    seen, labels, held_out, truth = features_and_labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    assert Judge(seen, labels[order]).accuracy(held_out, truth) < 0.25


def test_features_without_an_encoder_are_small_pictures() -> None:
    features = Features(None, torch.device("cpu")).of(torch.rand(3, 3, 64, 32))
    assert features.shape == (3, 3 * 16 * 16)


def test_noisy_copies_are_more_alike_than_wrong_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = torch.randn(50, 20, generator=generator)
    right, wrong = similarity(theirs + 0.5 * torch.randn(50, 20, generator=generator), theirs)
    assert right > 0.8
    assert abs(wrong) < 0.1


def test_what_never_varied_in_the_examples_does_not_keep_the_rest_from_being_read() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.eye(3).repeat_interleave(8, dim=1)
    labels = torch.arange(90) % 3
    known = torch.cat([shapes[labels] + 0.1 * torch.randn(90, 24, generator=generator), torch.zeros(90, 8)], dim=1)
    drawn = known[:30].clone()
    drawn[:, 24:] = 0.1  # a margin that is not quite empty
    assert Judge(known, labels).accuracy(drawn, labels[:30]) == 1
