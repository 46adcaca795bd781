import re

import pytest
import torch

SIZES = ("--batch", "3", "--width", "8", "--sentences", "5", "--steps", "2", "--device", "cpu")
VARIANTS = ("Plain", "WithAttention", "WithMatching", "WithBoth")


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("op_in_your_model")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_compares_and_times_every_variant(run_example, dtype):
    done = run_example("op_in_your_model", *SIZES, "--dtype", dtype)
    assert done.returncode == 0, done.stderr
    assert "loss and gradients of all variants are within" in done.stdout
    assert re.search(r"backends on cpu: sigmoid_attention \w+, match_prototypes \w+", done.stdout)
    rows = dict(re.findall(r"^(\w+) +(\d+\.\d+) +\d+\.\d+", done.stdout, re.MULTILINE))
    assert tuple(rows) == VARIANTS and all(float(ms) > 0 for ms in rows.values())


@pytest.mark.parametrize("variant", VARIANTS[1:])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 7, 3, 7), (2,)])
def test_losses_and_gradients_are_those_of_plain_pytorch(example, variant, lengths, rng):
    torch.manual_seed(int(rng.integers(2**31)))
    plain, other = example.Plain(12, 7), getattr(example, variant)(12, 7)
    other.load_state_dict(plain.state_dict())
    patches, sentences = torch.randn(len(lengths), 9, 12), torch.randn(len(lengths), max(lengths), 12)
    batch = patches, sentences, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    wanted, found = example.loss_and_gradients(plain, batch), example.loss_and_gradients(other, batch)
    for right, got in zip(wanted, found, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-6)


def test_padding_has_no_influence(example):
    torch.manual_seed(3)
    model = example.WithBoth(8, 5)
    patches, sentences, mask = example.made_up_batch(4, 8, 5)
    other = torch.where(mask[..., None], sentences, 1e3)
    assert not mask.all() and torch.equal(model(patches, sentences, mask), model(patches, other, mask))


def test_a_batch_has_a_report_of_one_sentence(example):
    assert example.made_up_batch(6, 4, 9)[2].sum(dim=1)[0] == 1


def test_wrong_arguments_end_with_one_line(run_example):
    done = run_example("op_in_your_model", "--steps", "0")
    assert done.returncode == 2 and "must be 1 or more" in done.stderr.splitlines()[-1]
