"""Parts of a loss in coarser numbers than its parameters are rounding, and no fault; what is lost is one still."""

import math

import pytest
import torch
from torch import nn

from vaebench.gates import run_gates
from vaebench.gates.at_rest import Draws
from vaebench.gates.directions import Tally
from vaebench.gates.means import gradient_mean_two_sample
from vaebench.gates.paired import differences
from vaebench.gradients import Loss, Objective, analytic_kl, pathwise
from vaebench.gradients.rounding import explained, rounding_of
from vaebench.gradients.trial import check_replicates
from vaebench.models import from_encoder_decoder

UNIT = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


class Coarse(nn.Module):
    """A layer that computes in another dtype than it takes and gives."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.layer, self.dtype = layer, dtype

    def forward(self, x):
        weights = {name: p.to(self.dtype) for name, p in self.layer.named_parameters()}
        return torch.func.functional_call(self.layer, weights, (x.to(self.dtype),)).to(x.dtype)


class Autocast(Coarse):
    def forward(self, x):
        with torch.autocast("cpu", self.dtype):
            return self.layer(x).to(x.dtype)


def loss_with(wrapper, dtype, parameters=torch.float64):
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(6, 4), nn.Linear(2, 6)
    decoder = decoder if wrapper is None else wrapper(decoder, dtype)
    model = from_encoder_decoder(encoder, decoder, 2, likelihood="gaussian").to(parameters)
    return Loss(model, pathwise, Objective()), torch.randn(20, 6, dtype=parameters)


@pytest.mark.parametrize(
    ("wrapper", "dtype", "parameters", "unit"),
    [
        (None, None, torch.float64, torch.float64),
        (None, None, torch.float32, torch.float32),
        (Coarse, torch.float32, torch.float64, torch.float32),
        (Coarse, torch.bfloat16, torch.float32, torch.bfloat16),
        (Coarse, torch.float64, torch.float32, torch.float32),
        (Autocast, torch.bfloat16, torch.float32, torch.bfloat16),
    ],
)
def test_the_coarsest_numbers_give_the_unit_and_are_accepted(wrapper, dtype, parameters, unit):
    loss, x = loss_with(wrapper, dtype, parameters)
    assert rounding_of(loss, x, x.new_zeros(loss.noise_shape(len(x)))) == UNIT[unit]
    assert torch.equal(check_replicates(loss, x), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gradient_that_torch_func_loses_is_refused_in_any_dtype(dtype):
    """The closure holds the decoder's own parameter, of which `torch.func` knows nothing: half of it is lost."""
    loss, x = loss_with(Coarse, dtype)
    weight = loss.model.decoder.layer.weight

    def half_by_closure(model, x, noise, objective):
        lost = (weight.to(dtype) ** 2).sum().to(x.dtype)
        return pathwise(model, x, noise, objective) + 0.05 * lost

    with pytest.raises(ValueError, match=r"The gradient of 'decoder\.layer\.weight' under torch\.func is not"):
        check_replicates(Loss(loss.model, half_by_closure, Objective()), x)


@pytest.mark.parametrize(("scale", "caught"), [(1.0, False), (1.001, True)])
def test_pairs_at_equal_noise_tell_float32_from_a_scale_one_in_a_thousand_off(scale, caught):
    """A likelihood in float32 beside one in float64 is 1e-7 off, the same in many draws."""
    loss, x = loss_with(None, None)

    def in_float32(model, x, noise, objective):
        q = model.posterior(x)
        z = q.transport(noise)
        mean = z.float() @ model.decoder.weight.float().mT + model.decoder.bias.float()
        fit = (-0.5 * (x - mean.to(x.dtype)).square()).sum(-1) + 0 * z.sum(-1)
        return scale * (fit.mean(0) - q.kl_to_standard_normal())

    found = differences(
        loss.model, in_float32, Objective(), x, 8, 512, torch.Generator().manual_seed(0), trusted=analytic_kl
    )
    assert (found.p_value < 1e-8) == caught


def test_what_rounding_explains_is_part_of_the_smallest_deviation():
    """Along d = (1, 1), of |d|^2 = 2 and |d|_1 = 2, a slack of 0.01 x 3 in each number is 0.03 of the scale."""
    rows = torch.randn(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for rounding in (0.0, 0.01):
        tally = Tally({"scale": torch.ones(2, 2, dtype=torch.float64)}, {"a": 1, "b": 1})
        for half, part in enumerate(rows.chunk(2)):
            tally.enter(part, 3.0, half)
            tally.turn()
        found.append(tally.test(rounding).smallest("scale"))
    assert found[1] - found[0] == pytest.approx(0.03)
    assert math.isfinite(found[0])


class Idle(nn.Linear):
    """A layer whose bias counts for nothing, as that of a unit that never wakes."""

    def forward(self, x):
        return x @ self.weight.mT + 0 * self.bias


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_parameter_without_a_gradient_is_no_alarm_in_float32(optimizer):
    """Its steps and errors are zero: 0 over 1e-300, which is zero in float32, was no number, and that an alarm."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), Idle(5, 6))
    nn.init.zeros_(decoder[2].bias)
    model = from_encoder_decoder(nn.Linear(6, 2), decoder, 1, likelihood="gaussian")
    settings = {"steps": 200, "members": 8, "replicates": 1600, "batch_size": 4, "optimizer": optimizer}
    found = {v.gate: v for v in run_gates(model, analytic_kl, Objective(), torch.randn(24, 6), **settings)}
    assert not [gate for gate, v in found.items() if v.outcome == "fail"]
    assert {"descent ledger", "noise mean", "optimizer step", "replay"} <= found.keys()
    assert found["optimizer step"].statistic < 1 and math.isfinite(found["noise mean"].statistic)


def test_the_direction_of_a_trusted_mean_is_independent_of_what_is_tested_along_it():
    """800 draws of 400 numbers of mean zero: along its own mean a sample is sqrt(400 / 2) = 14 errors from another."""
    generator = torch.Generator().manual_seed(3)
    first, second = (Draws({"a": torch.randn(800, 400, dtype=torch.float64, generator=generator)}) for _ in range(2))
    own = (first.flat - second.flat) @ second.flat.mean(0)
    assert -18 < float(own.mean() / own.std()) * 800**0.5 < -10
    assert gradient_mean_two_sample(["start"], [first], [second], generator).statistic < 2


def test_what_rounding_explains_by_hand():
    """1e-9, 100 / 2^23, and 4 / 2^10 + 1e-4."""
    assert [explained(UNIT[dtype]) for dtype in (torch.float64, torch.float32, torch.float16)] == pytest.approx(
        [1e-9, 1.1920929e-05, 4.00625e-3]
    )


def test_an_estimator_that_needs_rows_in_pairs_is_judged_by_whole_minibatches():
    loss, x = loss_with(None, None)

    def in_pairs(model, x, noise, objective):
        return pathwise(model, x, noise[:, : len(x) // 2].repeat(1, 2, 1), objective)

    found = differences(loss.model, in_pairs, Objective(), x, 8, 64, torch.Generator().manual_seed(0))
    assert found.p_value > 1e-8
