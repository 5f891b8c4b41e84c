"""Black boxes: what is right passes, and the faults that are known of other libraries are found."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vaebench.cli import app
from vaebench.cli.parts import build_claim
from vaebench.experiments.blackboxes import Claim, of_model
from vaebench.experiments.blackboxes.judging import contract, mean_gradient, value, variance_in_batch
from vaebench.gradients import Objective
from vaebench.models import gaussian, mlp_vae
from vaebench.report.certificate import certify_box

IWAE = Objective(5, 0.0)
PYRO = pytest.mark.skipif(importlib.util.find_spec("pyro") is None, reason="needs the extra pyro")
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
NUMPYRO = pytest.mark.skipif(importlib.util.find_spec("numpyro") is None, reason="needs the extra numpyro")


def model():
    generator = torch.Generator().manual_seed(0)
    made = mlp_vae((6,), (), 1, likelihood=gaussian(1.0), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.8)
    return made


def data():
    return 0.5 * torch.randn(32, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Faulty:
    """A right box with a fault on top."""

    def __init__(self, fault):
        self.box, self.fault = of_model(model(), IWAE), fault
        self.parameters = self.box.parameters

    def value_and_gradient(self, parameters, x, seed):
        return self.fault(*self.box.value_and_gradient(parameters, x, seed))


def outcomes(box):
    claim = Claim(box, of_model(model(), IWAE), IWAE)
    found = certify_box(claim, data().numpy(), level="fast", name="box")
    return found, {verdict.gate: verdict.outcome for verdict in found.verdicts}


def test_a_right_box_is_certified_and_its_page_is_whole(tmp_path):
    found, _ = outcomes(Faulty(lambda value, gradient: (value, gradient)))
    assert found.outcome == "pass"
    assert found.save(tmp_path / "box").is_file()
    json.loads((tmp_path / "box" / "certificate.json").read_text(), parse_constant=pytest.fail)


FAULTS = {
    "bound value": lambda value, gradient: (value - 0.1, gradient),
    "gradient mean": lambda value, gradient: (value, {name: 0.9 * g for name, g in gradient.items()}),
    "contract": lambda value, gradient: (value, gradient | {"encoder.1.bias": 0 * gradient["encoder.1.bias"]}),
}


@pytest.mark.parametrize("gate", FAULTS)
def test_a_fault_is_found_by_its_gate(gate):
    """A value off by 0.1 nats, a gradient a tenth too small, a parameter without a gradient."""
    found, by_gate = outcomes(Faulty(FAULTS[gate]))
    assert by_gate[gate] == "fail", str(found)


def test_noise_of_its_own_generator_breaks_the_contract():
    generator = np.random.default_rng(0)
    box = Faulty(lambda value, gradient: (value + generator.normal(), gradient))
    assert contract(box, data().numpy(), [1, 2]).evidence["broken"] == "unequal at equal seeds"


def test_frozen_noise_breaks_the_contract():
    right = of_model(model(), Objective())

    class Frozen:
        parameters = right.parameters

        def value_and_gradient(self, parameters, x, seed):
            return right.value_and_gradient(parameters, x, 0)

    assert contract(Frozen(), data().numpy(), [1, 2]).evidence["broken"] == "no fresh noise"


def test_the_statistics_are_worked_out_by_hand():
    """Means 1 and 0 with unit deviation and R = 100: z = 1 / sqrt(2 / 100) = 7.07; a slope of 0 is 1 from -1."""
    draws = torch.cat([torch.ones(50), -torch.ones(50)]).double() * (99 / 100) ** 0.5
    assert value(draws + 1, draws).statistic == pytest.approx(7.0711, rel=1e-3)
    table = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert variance_in_batch(table, table).statistic == pytest.approx(1.0)
    assert mean_gradient(table + 1, table + 1).statistic == 0


VAE_IN_PYRO = """
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from tests.test_blackboxes import data, model as vae
from pyro.distributions.testing.fakes import NonreparameterizedNormal


def programs(scale=1, normal=dist.Normal):
    pyro.clear_param_store()
    net = vae()

    def rows(x):
        return pyro.plate("data", scale * len(x), subsample_size=len(x)) if scale > 1 else pyro.plate("data", len(x))

    def model(x):
        pyro.module("decoder", net.decoder)
        with rows(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1).to_event(1))
            y = net.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])
            pyro.sample("x", dist.Normal(y, 1).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", net.encoder)
        q = net.posterior(x)
        with rows(x):
            pyro.sample("z", normal(q.mean, q.log_std.exp()).to_event(1))

    return model, guide


OPTIONS = {"num_particles": 5, "vectorize_particles": True, "max_plate_nesting": 1}


def trace_elbo():
    return *programs(), Trace_ELBO(**OPTIONS)


def half_of_the_data():
    return *programs(2), Trace_ELBO(**OPTIONS)


def renyi():
    return *programs(), RenyiELBO(alpha=0, **OPTIONS)


def renyi_half_of_the_data():
    return *programs(2), RenyiELBO(alpha=0, **OPTIONS)


def renyi_without_rsample():
    return *programs(normal=NonreparameterizedNormal), RenyiELBO(alpha=0, **OPTIONS)
"""

VAE_IN_NUMPYRO = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import RenyiELBO
from tests.test_blackboxes import data, model as vae

START = {name: p.detach().numpy() for name, p in vae().named_parameters()}


def model(x):
    weight, bias = (numpyro.param(f"decoder.0.0.{n}" if f"decoder.0.0.{n}" in START else f"decoder.0.{n}",
                    START.get(f"decoder.0.0.{n}", START.get(f"decoder.0.{n}"))) for n in ("weight", "bias"))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(1, x.dtype), 1).to_event(1))
        numpyro.sample("x", dist.Normal(z @ weight.T + bias, 1).to_event(1), obs=x)


def guide(x):
    weight, bias = (numpyro.param(f"encoder.1.{n}", START[f"encoder.1.{n}"]) for n in ("weight", "bias"))
    mean, log_variance = jnp.split(x @ weight.T + bias, 2, -1)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1))


def renyi():
    return model, guide, RenyiELBO(alpha=0, num_particles=5)


def wrong_scale():
    def half(x):
        with numpyro.handlers.scale(scale=0.9):
            return model(x)

    return half, guide, RenyiELBO(alpha=0, num_particles=5)
"""


@pytest.fixture
def certify_in(tmp_path, monkeypatch):
    (tmp_path / "in_pyro.py").write_text(VAE_IN_PYRO)
    (tmp_path / "in_numpyro.py").write_text(VAE_IN_NUMPYRO)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    common = ["--data", "tests.test_blackboxes:data", "--quick", "--out", str(tmp_path / "made")]
    return lambda *arguments: CliRunner().invoke(app, ["certify", *arguments, *common, "--json"])


def failed_in(kind, name):
    claim = build_claim(kind, name, 0, data(), Objective(), None)
    found = certify_box(claim, data().numpy(), level="fast", name="box")
    return {verdict.gate for verdict in found.verdicts if verdict.outcome != "pass"}


@PYRO
@QUIET
@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("trace_elbo", set()),
        ("half_of_the_data", set()),
        ("renyi", set()),
        ("renyi_half_of_the_data", {"bound value", "gradient mean"}),
        ("renyi_without_rsample", {"contract"}),  # the trusted score-function gradient is noisy at 400 draws
    ],
)
def test_pyro(name, failed, certify_in):
    """What reports/peers says of Pyro: without a path there is no gradient; the rest is right."""
    assert failed_in("pyro", f"in_pyro:{name}") == failed


@NUMPYRO
@QUIET
@pytest.mark.parametrize(("name", "failed"), [("renyi", set()), ("wrong_scale", {"bound value", "gradient mean"})])
def test_numpyro(name, failed, certify_in):
    assert failed_in("numpyro", f"in_numpyro:{name}") == failed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name one thing to certify"),
        (["pathwise", "--pyro", "m:f"], "Name one thing to certify"),
        (["--black-box", "tests.test_blackboxes:right"], "needs --model"),
        (["--black-box", "tests.test_blackboxes:data"], "must return a black box"),
        (["--pyro", "tests.test_blackboxes:data"], "must return three things"),
    ],
)
def test_what_cannot_be_asked_of_a_box(arguments, sentence, certify_in):
    result = certify_in(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.output.split())


def right():
    return of_model(model(), Objective())
