"""Samplers of minibatches, and streams of minibatches with noise."""

import pytest
import torch

from vaebench.data import sampling


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_with_replacement_is_uniform_and_repeats_examples():
    """60,000 draws of 10: each count has standard deviation 73.5; a bound of 5 of them fails for 6 seeds in 10^6."""
    rows = sampling.with_replacement(10, 6, seeded(0))(10_000)
    assert rows.shape == (10_000, 6)
    assert (rows.flatten().bincount(minlength=10) - 6000).abs().max() < 5 * 73.5
    assert any(len(row.unique()) < 6 for row in rows)


def test_epochwise_uses_each_example_once_per_epoch_however_it_is_asked():
    sampler, whole = sampling.epochwise(10, 3, seeded(1)), sampling.epochwise(10, 3, seeded(1))(9)
    rows = torch.cat([sampler(n) for n in (1, 4, 2, 2)])
    assert torch.equal(rows, whole)
    for epoch in rows.view(3, 9):
        assert len(epoch.unique()) == 9
    assert not torch.equal(rows[:3], rows[3:6])


def test_repeated_keeps_a_minibatch_for_so_many_draws():
    rows = sampling.repeated(sampling.with_replacement(100, 4, seeded(2)), 3)(9).view(3, 3, 4)
    assert (rows == rows[:, :1]).all() and not torch.equal(rows[0], rows[1])


def test_whole_is_all_examples_in_order():
    assert torch.equal(sampling.whole(3, 3, seeded(3))(2), torch.tensor([[0, 1, 2], [0, 1, 2]]))


def test_a_stream_draws_standard_normal_noise_of_its_shape_and_dtype():
    stream = sampling.Stream(sampling.with_replacement(9, 4, seeded(4)), (2, 4, 3), torch.float64, seeded(4))
    indices, noise = stream.draw(5)
    assert indices.shape == (5, 4) and noise.shape == (5, 2, 4, 3) and noise.dtype == torch.float64


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at most 4"):
        sampling.epochwise(4, 5, seeded(5))
    with pytest.raises(ValueError, match="batch_size must be 4"):
        sampling.whole(4, 5, seeded(5))
    with pytest.raises(ValueError, match="size must be an integer"):
        sampling.with_replacement(0, 5, seeded(5))


def test_the_length_of_a_block_by_hand():
    """65,536 random numbers hold so many draws of B (K D + 1) each: 12 of 64 x 81, at most 256 and at least one."""

    def length(samples, batch_size, latents):
        draw = sampling.with_replacement(10, batch_size, seeded(0))
        return sampling.block_length(sampling.Stream(draw, (samples, batch_size, latents), torch.float64, seeded(0)))

    assert [length(40, 64, 2), length(1, 4, 2), length(100, 4096, 10)] == [12, 256, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (5, 8, 1), (8, 64, 2), (7, 300, 29)])
def test_how_many_draws_are_asked_for_changes_none_of_them(shape, dtype):
    """Blocks are of 256, 256, 256, 60 and 1 draw: none, one, a part of a block, a whole one and more are asked for."""

    def drawn(count):
        generators = [seeded(seed) for seed in (6, 7)]
        streams = [sampling.Stream(sampling.epochwise(2 * shape[1], shape[1], g), shape, dtype, g) for g in generators]
        return list(sampling.joint_draws(streams, count)), streams

    block = sampling.block_length(drawn(0)[1][0])
    whole = drawn(2 * block)[0]
    for count in sorted({0, 1, block // 3, block - 1, block, min(2 * block, block + 17)}):
        found, streams = drawn(count)
        assert len(found) == count
        for (indices, noise), (others, their_noise) in zip(found, whole, strict=False):
            assert torch.equal(indices, others) and torch.equal(noise, their_noise)
        if count == block:
            again = sampling.joint_draws(streams, block)
            assert all(torch.equal(one[1], other[1]) for one, other in zip(again, whole[block:], strict=True))
