"""Data of every kind times all that takes data: the right value where nothing is lost, else one sentence."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, TensorDataset

from vaebench.data.sampling import epochwise
from vaebench.gates import run_gates
from vaebench.gates.contract import check_estimator, check_model
from vaebench.gradients import Loss, Objective, doubly_reparameterized, pathwise
from vaebench.measures import moments
from vaebench.measures.likelihood import bound, log_likelihood
from vaebench.models import VAE, LinearVAE, as_input, check_input, gaussian, mlp_vae
from vaebench.models.distributions import Bernoulli, Gaussian, Poisson
from vaebench.training.fleet import train
from vaebench.training.optimizers import sgd
from vaebench.training.schedules import constant

OBJECTIVE = Objective(2, 0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(dtype=torch.float64) -> Tensor:
    """Eighths, which every dtype holds."""
    return torch.randint(0, 9, (6, 2), generator=seeded(1)).to(dtype) / 8


def counts(dtype=torch.float64) -> Tensor:
    return torch.randint(0, 9, (6, 2), generator=seeded(1)).to(dtype)


def model(likelihood=None, dtype=torch.float64):
    return mlp_vae((2,), (3,), 1, likelihood=likelihood or gaussian(0.5), generator=seeded(2), dtype=dtype)


class Kind(NamedTuple):
    """Data, for which model, and the float64 numbers that they stand for or the sentence that refuses them."""

    data: Any
    means: Tensor | str
    likelihood: Callable | None = None
    dtype: torch.dtype = torch.float64


def changed(x: Tensor, value: float) -> Tensor:
    return x.index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(value, dtype=x.dtype))


class OtherFrame:
    """What other libraries of data frames have in common with pandas'."""

    columns, dtypes = ("a", "b"), ("Float64", "Float64")

    def to_numpy(self):
        return table().numpy()


class Deaf(Tensor):
    """A tensor of which nothing can be asked."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("not that\nand not this")


def made_in_inference_mode() -> Tensor:
    with torch.inference_mode():
        return table().clone()


def nested() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        return torch.nested.nested_tensor([table()[0], table()[1]])


def without_values() -> Tensor:
    with FakeTensorMode():
        return torch.zeros(6, 2)


F32, F64 = torch.float32, torch.float64
EYE = torch.tensor([[0, 1], [1, 2]], dtype=F64)
THIRDS = counts() / 3
BYTES = (17 * counts()).to(torch.uint8)
KINDS = {
    "float64 for float64": Kind(table(), table()),
    "float64 for float32, exact": Kind(table(), table(), dtype=F32),
    "float64 for float32, rounded": Kind(THIRDS, "x is float64 and the model float32, which would round", dtype=F32),
    "float32 for float64": Kind(table(F32), table()),
    "float32 for bfloat16, exact": Kind(table(F32), table(), dtype=torch.bfloat16),
    "float32 for float16, too large": Kind(1e6 * table(F32), "would round", dtype=torch.float16),
    "float16 for float32": Kind(table(torch.float16), table(), dtype=F32),
    "int64": Kind(counts(torch.int64), counts()),
    "int64 for float32, large": Kind(counts(torch.int64) + 2**24, "would round", dtype=F32),
    "int8": Kind(counts(torch.int8) - 4, counts() - 4),
    "uint16": Kind(counts().numpy().astype(np.uint16), counts()),
    "bool": Kind(counts() > 3, (counts() > 3).double(), Bernoulli),
    "numpy": Kind(table().numpy(), table()),
    "numpy, read-only and reversed": Kind(np.broadcast_to(table().numpy(), (6, 2))[::-1], table().flip(0)),
    "numpy, big-endian": Kind(table().numpy().astype(">f8"), table()),
    "numpy, integers": Kind(counts().numpy().astype(np.int32), counts()),
    "numpy, objects": Kind(table().numpy().astype(object), "x must hold real numbers of at most 64 bits, got an array"),
    "numpy, words": Kind(np.array([["a", "b"]] * 6), "x must hold real numbers"),
    "numpy, masked": Kind(np.ma.masked_greater(table().numpy(), 0.8), "masked value"),
    "data frame": Kind(pd.DataFrame(table().numpy(), columns=["a", "b"]), table()),
    "data frame, mixed": Kind(
        pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 0, 1]}), torch.tensor([[1, 0.5], [2, 0], [3, 1]], dtype=F64)
    ),
    "data frame with words": Kind(
        pd.DataFrame({"a": [1, 2], "kind": ["x", "y"]}), "Column 'kind' of x holds no numbers"
    ),
    "data frame, booleans beside floats": Kind(
        pd.DataFrame({"a": [True, False], "b": [0.5, 1]}), torch.tensor([[1, 0.5], [0, 1]], dtype=F64)
    ),
    "data frame of columns that could miss values": Kind(
        pd.DataFrame({"a": pd.array([1, 0, 3], "Int64"), "b": pd.array([0.5, 1, 0], "Float64")}),
        torch.tensor([[1, 0.5], [0, 1], [3, 0]], dtype=F64),
    ),
    "data frame, missing": Kind(
        pd.DataFrame({"a": pd.array([1, None, 3], "Int64"), "b": [0.5, 1, 0]}),
        r"Column 'a' of x holds 1 NaN or missing value\(s\)",
    ),
    "data frame, sparse": Kind(pd.DataFrame({"a": pd.arrays.SparseArray([0, 1.0]), "b": [1.0, 2]}), EYE),
    "data frame, large integers beside floats": Kind(
        pd.DataFrame({"a": [2**53 + 1, 1], "b": [0.5, 1]}),
        "Column 'a' of x is int64, .* float64, .* round 1 of 2",
    ),
    "data frame, signed and unsigned": Kind(
        pd.DataFrame({"a": np.array([2**64 - 1, 1], "u8"), "b": [1, 1]}),
        "Column 'a' of x is uint64, .* round 1 of 2",
    ),
    "data frame of one name twice": Kind(pd.DataFrame(table().numpy(), columns=["a", "a"]), table()),
    "data frame of another library": Kind(OtherFrame(), table()),
    "(x, labels)": Kind((table(), torch.arange(6)), r"got a tuple of 2; pass the examples alone, x\[0\]"),
    "rows in a list": Kind(table().tolist(), "got a list of 6"),
    "TensorDataset": Kind(TensorDataset(table()), r"got a TensorDataset; pass the examples alone, x.tensors\[0\]"),
    "DataLoader": Kind(DataLoader(TensorDataset(table())), "got DataLoader; pass a tensor"),
    "nothing": Kind(None, "got nothing; pass a tensor|belong together, got one without the other"),
    "a name": Kind("digits", "got str; pass a tensor"),
    "labels alone": Kind(torch.arange(6), r"x must be \(B, \*event\) with B at least 1, got shape \(6,\)"),
    "bytes": Kind(BYTES, BYTES.double() / 255, Bernoulli),
    "bytes in numpy": Kind(BYTES.numpy(), BYTES.double() / 255, Bernoulli),
    "bytes of 0 and 1": Kind(
        (counts() > 3).to(torch.uint8), "x holds bytes of at most 1, and bytes become pixels", Bernoulli
    ),
    "bytes of 0": Kind(torch.zeros(6, 2, dtype=torch.uint8), "x holds bytes of at most 0", Bernoulli),
    "counts for Poisson": Kind(counts(), counts(), Poisson),
    "integers for Poisson": Kind(counts(torch.int64), counts(), Poisson),
    "bytes for Poisson": Kind(BYTES, "x holds bytes, which become pixels in .0, 1., no counts", Poisson),
    "negative for Poisson": Kind(changed(counts(), -2.0), "x must be counts 0, 1, 2, ... .* got -2", Poisson),
    "fractional for Poisson": Kind(changed(counts(), 2.5), "x must be counts 0, 1, 2, ... .* got 2.5", Poisson),
    "above 1 for Bernoulli": Kind(counts(), r"x must lie in \[0, 1\] for a Bernoulli likelihood", Bernoulli),
    "NaN": Kind(changed(table(), float("nan")), r"x holds 1 NaN or infinite value\(s\)"),
    "infinite": Kind(changed(table(), float("-inf")), r"x holds 1 NaN or infinite value\(s\)"),
    "NaN for float32": Kind(changed(table(), float("nan")), r"x holds 1 NaN or infinite value\(s\)", dtype=F32),
    "complex": Kind(table().to(torch.complex128), "x must be a dense tensor of real numbers, got one that is complex"),
    "sparse": Kind(table().to_sparse(), "got one that is sparse"),
    "meta": Kind(table().to("meta"), "got one that is on the meta device"),
    "nested": Kind(nested(), "got one that is sparse, nested or quantized"),
    "without values": Kind(without_values(), "got a FakeTensor that cannot be read"),
    "of a class that answers nothing": Kind(table().as_subclass(Deaf), r"got a Deaf that cannot be read \(not that\)"),
    "of a class of its own": Kind(torch.nn.Buffer(table()), table()),
    "made in inference mode": Kind(made_in_inference_mode(), table()),
    "more rows than memory": Kind(torch.zeros(1, 2).expand(10**12, 2), "x has 2,000,000,000,000 numbers, and at most"),
    "more rows than memory, numpy": Kind(np.broadcast_to(np.zeros(2), (10**12, 2)), "x has 2,000,000,000,000 numbers"),
    "requires grad": Kind(table().requires_grad_(), table()),
    "not contiguous": Kind(table().t().contiguous().t(), table()),
    "one row": Kind(table()[:1], table()[:1]),
    "empty": Kind(table()[:0], r"with B at least 1, got shape \(0, 2\)"),
    "another event": Kind(torch.zeros(6, 3), r"x must be \(B, 2\) for this model, got shape \(6, 3\)"),
}


def numbers(x):
    """What a use makes of data: all that it returns, as one tensor."""
    return torch.as_tensor(x, dtype=F64).detach().flatten()


def trained(m, x):
    state = list(train(m, pathwise, OBJECTIVE, x, sgd, constant(0.01), 2, 3, (1, 2)))[-1].state
    return torch.cat([numbers(p) for p in state.parameters.values()])


def gathered(m, x):
    loss = Loss(m, pathwise, OBJECTIVE)
    found = moments.gradient_moments(loss, moments.fresh(loss, x, 3, seeded(3)), 4)
    return torch.cat([numbers(g) for g in found.mean.values()])


def given(m, x):
    loss = Loss(m, pathwise, OBJECTIVE)
    found = moments.gradient_moments(loss, moments.conditional(loss, check_input(m, x), seeded(3)), 4)
    return torch.cat([numbers(g) for g in found.mean.values()])


def checked(m, x):
    return numbers(as_input(check_input(m, x), next(m.parameters())))


def certified(m, x):
    settings = {"steps": 100, "members": 2, "replicates": 800, "batch_size": 2, "schedule": constant(0.001)}
    verdicts = run_gates(m, pathwise, OBJECTIVE, x, **settings)
    return numbers([v.statistic for v in verdicts if v.gate == "gradient mean"])


def contract(check):
    def use(m, x):
        check(m, x)
        return numbers(0)

    return use


USES = {
    "check_input": checked,
    "train": trained,
    "moments": gathered,
    "conditional": given,
    "bound": lambda m, x: numbers(bound(Loss(m, pathwise, OBJECTIVE), x, 2, seeded(4)).value),
    "log_likelihood": lambda m, x: numbers(log_likelihood(Loss(m, pathwise, OBJECTIVE), x, 20, seeded(5)).value),
    "groups": lambda m, x: numbers(len(moments.parameter_groups(Loss(m, pathwise, OBJECTIVE), x)["phi"])),
    "check_model": contract(lambda m, x: check_model(m, x, seeded(6))),
    "check_estimator": contract(lambda m, x: check_estimator(pathwise, OBJECTIVE, seeded(6), m, x, replicates=640)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_right_value_or_one_sentence(kind, use):
    x, means, likelihood, dtype = KINDS[kind]
    if kind == "one row" and use.startswith("check_") and use != "check_input":
        pytest.skip("a contract is about two rows and more")
    if isinstance(means, str):
        with pytest.raises(ValueError, match=means) as refused:
            USES[use](model(likelihood, dtype), x)
        assert "\n" not in str(refused.value) and str(refused.value).endswith(".")
        return
    found, expected = USES[use](model(likelihood, dtype), x), USES[use](model(likelihood, dtype), means.to(dtype))
    assert torch.equal(found, expected)
    if use == "check_input":
        torch.testing.assert_close(found, numbers(means), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "kind", ["int64", "bytes", "data frame", "bytes of 0 and 1", "fractional for Poisson", "(x, labels)"]
)
def test_certification_keeps_the_same_rules(kind):
    x, means, likelihood, dtype = KINDS[kind]
    if isinstance(means, str):
        with pytest.raises(ValueError, match=means):
            certified(model(likelihood, dtype), x)
    else:
        assert torch.equal(certified(model(likelihood, dtype), x), certified(model(likelihood, dtype), means.to(dtype)))


def test_fewer_rows_than_the_batch_are_drawn_with_replacement_and_refused_without():
    few, settings = table()[:2], (sgd, constant(0.01), 2, 5, (1,))
    seen = []
    list(train(model(), pathwise, OBJECTIVE, few, *settings, observe=lambda step: seen.append(step.indices)))
    assert seen[0].shape == (1, 5) and int(seen[0].max()) <= 1
    with pytest.raises(ValueError, match="batch_size must be at most 2, the number of examples, got 5"):
        list(train(model(), pathwise, OBJECTIVE, few, *settings, sampler=epochwise))


def test_data_are_left_as_they_are():
    x = table()
    array, before = x.numpy(), x.clone()
    for use in USES.values():
        use(model(), array)
    assert torch.equal(x, before)


# Models and estimators that do not keep their contracts


def net(outputs, wrap=None):
    encoder = nn.Linear(2, outputs, dtype=F64)
    return VAE(encoder if wrap is None else wrap(encoder), nn.Linear(3, 2, dtype=F64), 3, gaussian(0.5))


class Twice(nn.Module):
    """Mean and log-variance as a pair, as many encoders return them."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return tuple(self.inner(x).chunk(2, -1))


class Transposed(VAE):
    def likelihood(self, z):
        return super().likelihood(z.transpose(0, 1))


class Tuple(VAE):
    def posterior(self, x):
        return tuple(super().posterior(x))


def another(kind):
    base = net(6)
    return kind(base.encoder, base.decoder, 3, gaussian(0.5))


ENCODER = r"The encoder must give 2 D = 6 numbers per example, means then log-variances, shape \(2, 6\), got "
MODELS = {
    "an encoder of D outputs": (lambda: net(3), ENCODER + r"\(2, 3\)"),
    "an encoder of 1 output": (lambda: net(1), ENCODER + r"\(2, 1\)"),
    "an encoder of a pair": (lambda: net(6, Twice), ENCODER + "a tuple"),
    "a posterior that is a tuple": (
        lambda: another(Tuple),
        "The posterior must be a Gaussian of mean and log_std, got a tuple",
    ),
    "a transposed likelihood": (
        lambda: another(Transposed),
        r"likelihood (failed with RuntimeError|must give .* \(K, B\) = )",
    ),
}


def scalar(m, x, noise, objective):
    return pathwise(m, x, noise, objective).mean()


def matrix(m, x, noise, objective):
    """The log-weights, whose mean is the ELBO whatever the objective."""
    q = m.posterior(x)
    return objective.log_weights(m, x, q.transport(noise), q)


def over_examples(m, x, noise, objective):
    return matrix(m, x, noise, objective).mean(1)


def a_pair(m, x, noise, objective):
    return pathwise(m, x, noise, objective), 0.0


def broken(m, x, noise, objective):
    raise KeyError("weights")


def item(m, x, noise, objective):
    return pathwise(m, x, noise, objective) * m.encoder[1].weight.sum().item()


SURROGATE = r"Estimator '{}' must give one surrogate per example, shape \(B,\) = \(2,\) with K = 4, got {}"
ESTIMATORS = {
    "a scalar": (scalar, SURROGATE.format("scalar", r"\(\)")),
    "(K, B)": (matrix, SURROGATE.format("matrix", r"\(4, 2\)")),
    "(K,)": (over_examples, SURROGATE.format("over_examples", r"\(4,\)")),
    "a pair": (a_pair, SURROGATE.format("a_pair", "a tuple")),
    "an error": (broken, "Estimator 'broken' failed with KeyError: 'weights'."),
    "a number out of a tensor": (item, "Estimator 'item' decides by the value of a tensor"),
}
OBJECTIVE_OF_FOUR = Objective(4, 0.0)


@pytest.mark.parametrize("where", ["train", "check_model", "check_estimator", "moments", "log_likelihood"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_breaks_its_contract_is_named(name, where):
    make, message = MODELS[name]
    m, x = make(), table()
    uses = {
        "train": lambda: train(m, pathwise, OBJECTIVE_OF_FOUR, x, sgd, constant(0.01), 2, 3, (1,)),
        "check_model": lambda: check_model(m, x, seeded()),
        "check_estimator": lambda: check_estimator(pathwise, OBJECTIVE_OF_FOUR, seeded(), m, x),
        "moments": lambda: moments.fresh(Loss(m, pathwise, OBJECTIVE_OF_FOUR), x, 3, seeded()),
        "log_likelihood": lambda: log_likelihood(Loss(m, pathwise, OBJECTIVE_OF_FOUR), x, 20, seeded()),
    }
    with pytest.raises((ValueError, AssertionError), match=message):
        uses[where]()


@pytest.mark.parametrize("where", ["train", "check_estimator", "certify"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_that_breaks_its_contract_is_named(name, where):
    estimator, message = ESTIMATORS[name]
    m, x = model(), table()
    uses = {
        "train": lambda: train(m, estimator, OBJECTIVE_OF_FOUR, x, sgd, constant(0.01), 2, 3, (1,)),
        "check_estimator": lambda: check_estimator(estimator, OBJECTIVE_OF_FOUR, seeded(), m, x),
        "certify": lambda: run_gates(m, estimator, OBJECTIVE_OF_FOUR, x, steps=100, members=2, replicates=800),
    }
    with pytest.raises((ValueError, AssertionError), match=message):
        uses[where]()


def test_what_keeps_its_contract_is_taken():
    for estimator in (pathwise, doubly_reparameterized):
        list(train(model(), estimator, OBJECTIVE_OF_FOUR, table(), sgd, constant(0.01), 2, 3, (1,)))
    linear = LinearVAE(torch.eye(2), torch.eye(2), torch.zeros(2), 0.5)
    assert isinstance(linear.posterior(check_input(linear, table())), Gaussian)
