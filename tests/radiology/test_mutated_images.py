"""Mutated files of every format give an image or a reason of one line: no other error, no crash, no hang."""

import pytest

from tests.torture.images.mutations import mutated
from tests.torture.images.reading import Outcome, faults, read_mutations
from tests.torture.images.seeds import seeds

MEMORY = 3 << 29


@pytest.mark.parametrize(
    "numbers", [range(14), pytest.param(range(1000, 1300), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_mutated_file_gives_an_image_or_a_reason(numbers: range) -> None:
    kinds = list(seeds())
    outcomes = read_mutations(kinds, numbers, MEMORY, timeout=1800)
    assert len(outcomes) == len(kinds) * len(numbers)
    assert faults(outcomes) == []
    # Some mutations are harmless, and some are not.
    images = sum(not one.reason for one in outcomes)
    assert 0.1 < images / len(outcomes) < 0.9


def test_a_mutation_is_the_same_for_its_seed() -> None:
    data = seeds()["png"]
    assert mutated(data, 5) == mutated(data, 5) != mutated(data, 6)


def test_faults_are_found() -> None:
    fine = Outcome("a/1", "a reason", "", 0, 0.0)
    wrong = Outcome("a/2", "", "ValueError: x", 0, 0.0), Outcome("a/3", "two\nlines", "", 0, 0.0)
    assert faults([fine, *wrong]) == ["a/2: ValueError: x", "a/3: 'two\\nlines'"]
