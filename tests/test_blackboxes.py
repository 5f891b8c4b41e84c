"""Black boxes: what is right passes, and the faults that are known of other libraries are found."""

import importlib.util
import json
import math
import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vaebench.cli import app
from vaebench.cli.parts import build_claim
from vaebench.experiments.blackboxes import BackwardBox, Claim, against_model, of_model
from vaebench.experiments.blackboxes.drawing import Point, draw, draw_point
from vaebench.experiments.blackboxes.judging import contract, judge_box, value
from vaebench.experiments.blackboxes.protocol import STEP
from vaebench.experiments.certifying.cost import PROCESSOR_TIME, WALL_CLOCK
from vaebench.gates.directions import Differences
from vaebench.gates.variances import variance_in_batch
from vaebench.gradients import Loss, Objective, draw_noise, pathwise
from vaebench.measures.moments import gather
from vaebench.models import gaussian, mlp_vae
from vaebench.report.certificate import FIGURES, certify_box
from vaebench.report.certificate.figures import drawn

IWAE = Objective(5, 0.0)
PYRO = pytest.mark.skipif(importlib.util.find_spec("pyro") is None, reason="needs the extra pyro")
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
PYTHAE = pytest.mark.skipif(importlib.util.find_spec("pythae") is None, reason="needs the extra pythae")
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


def judged(claim):
    """Verdicts by gate, of 208 gradients each; a right box fails with probability 6e-5 at most."""
    stream = np.random.SeedSequence(0)

    def seeds(number):
        return [int(one) for one in stream.spawn(1)[0].generate_state(number) >> np.uint32(1)]

    x = data().numpy()
    return {v.gate: v for v in (contract(claim.box, x, seeds(2)), *judge_box(claim, x, 1, 208, 208, seeds).verdicts)}


def failed_of(claim):
    return {gate for gate, verdict in judged(claim).items() if verdict.outcome != "pass"}


def test_a_right_box_is_certified_and_its_page_is_whole(tmp_path):
    claim = Claim(Faulty(lambda value, gradient: (value, gradient)), of_model(model(), IWAE), IWAE)
    found = certify_box(claim, data().numpy(), level="fast", name="box")
    assert found.outcome == "pass"
    html = found.save(tmp_path / "box").read_text()
    assert "nothing to draw" not in html and html.count("<svg") == len(drawn(found.findings)) < len(FIGURES)
    json.loads((tmp_path / "box" / "certificate.json").read_text(), parse_constant=pytest.fail)


FAULTS = {
    "bound value": lambda value, gradient: (value - 0.2, gradient),
    "gradient mean": lambda value, gradient: (value, {name: 0.8 * g for name, g in gradient.items()}),
    "contract": lambda value, gradient: (value, gradient | {"encoder.1.bias": 0 * gradient["encoder.1.bias"]}),
}


@pytest.mark.parametrize("gate", FAULTS)
def test_a_fault_is_found_by_its_gate(gate):
    """A value off by 0.2 nats, a gradient a fifth too small, a parameter without a gradient."""
    found = failed_of(Claim(Faulty(FAULTS[gate]), of_model(model(), IWAE), IWAE))
    assert gate in found and found <= {gate, "gradient mean"}


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda value, gradient: None, "must return a loss and a gradient by the parameters' names, got None"),
        (lambda value, gradient: (value, {}), "must have shape .* got nothing"),
        (lambda value, gradient: (np.zeros(3), gradient), "one number, the mean over rows"),
        (lambda value, gradient: 1 / 0, "The black box failed with ZeroDivisionError"),
    ],
)
def test_what_is_no_box_is_one_sentence(fault, sentence):
    with pytest.raises(ValueError, match=sentence):
        contract(Faulty(fault), data().numpy(), [1, 2])


def test_what_is_not_finite_fails():
    box = Faulty(lambda value, gradient: (math.nan, {name: math.nan * g for name, g in gradient.items()}))
    assert failed_of(Claim(box, of_model(model(), IWAE), IWAE)) >= {"contract", "bound value", "gradient mean"}


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
    table = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    same = gather([{"all": table}], len(table))
    alike = Differences({}, 1.0, "none", 100)
    points = [Point(title, mine, draws, alike, True) for title, mine in (("a", draws), ("b", draws + 1))]
    found = value(points)
    assert found.statistic == pytest.approx(7.0711, rel=1e-3) and found.evidence["point"] == "b"
    assert variance_in_batch(same, same, 4).statistic == pytest.approx(1.0)


class Noisy:
    """A gradient of given means with unit noise in given units, and a loss that is one standard normal number."""

    def __init__(self, means, units):
        self.means, self.units = np.asarray(means, float), np.asarray(units, float)
        self.parameters = {"w": np.zeros_like(self.means)}

    def value_and_gradient(self, parameters, x, seed):
        noise = np.random.default_rng(seed).standard_normal(len(self.means) + 1)
        return noise[0], {"w": self.means + self.units * noise[1:]}


def apart(mine, trusted, heavier, units, count):
    """What the differences of two such boxes say."""
    boxes = [Noisy(means, units) for means in (mine, trusted, heavier)]
    stream = np.random.SeedSequence(0)

    def seeds(number):
        return [int(one) for one in stream.spawn(1)[0].generate_state(number)]

    claim = Claim(*boxes[:2], Objective(), heavier=boxes[2])
    return draw_point(claim, boxes[0].parameters, np.zeros((1, 1)), count, seeds, "here").apart


def test_the_scale_has_a_test_of_its_own():
    """Along the mean a deviation of a quarter stands out, and its error and power are those worked out by hand.

    800 draws of (4, 0, ..) + noise, those of the box 1.25 times as long: the deviation 0.25 of 4 has the error
    sqrt(2 / 800) / 4 = 0.0125, and what is found with probability 0.9 is t(1e-8 / 12) + 1.28 = 6.1 + 1.28 errors.
    """
    start = np.eye(60)[0] * 4
    found = apart(1.25 * start, start, start + STEP * np.eye(60)[1], np.ones(60), 800)
    scale = found.named["scale"]
    assert found.p_value < 1e-20 and scale.value == pytest.approx(0.25, abs=0.05)
    assert scale.error == pytest.approx((2 / 800) ** 0.5 / 4, rel=0.1)
    assert found.smallest("scale") == pytest.approx((6.1 + 1.28) * 0.0125, rel=0.15)
    assert apart(start, start, start, np.ones(60), 800).p_value > 1e-3  # false alarms: 1 in 1,000


def test_a_fault_where_there_is_little_noise_is_not_drowned_by_the_rest():
    """The weight is off by a fifth: by 0.2 of 5 = 1 with the error sqrt(2 / 800) = 0.05, and where noise is 100, 5.

    In units of the noise the error of the weight is 0.05 / 5 = 0.01; the plain scalar product with (5, 5) has one of
    5 * 5 / (2 * 5^2) = 0.5.
    """
    units = np.array([1.0, 100.0])
    means, weight = np.array([3.0, 3.0]), np.array([5.0, 5.0])
    found = apart(means + 0.2 * weight, means, means + STEP * weight, units, 800).named["KL weight"]
    assert found.value == pytest.approx(0.2, abs=0.05) and found.error == pytest.approx(0.01, rel=0.25)


def test_a_wrong_weight_is_told_by_its_name():
    """The bound with a Kullback-Leibler term 30 % too heavy, in place of the ELBO."""
    claim = against_model(of_model(model(), Objective(beta=1.3)), model(), Objective())
    found = certify_box(claim, data().numpy(), level="fast", name="heavy")
    assert "the weight of the KL term is off by +" in str(found)


def test_what_is_right_at_the_start_is_judged_elsewhere_too():
    """Where a net starts its encoder may give the prior whatever x is; then no weight of the KL term shows."""
    right = with_kl_at_rest(Objective())
    claim = against_model(with_kl_at_rest(Objective(beta=1.3)), model_at_rest(), Objective())
    assert right.parameters.keys() == claim.box.parameters.keys()
    found = judge_box(claim, data().numpy(), 1, 800, 800, drawn_from(np.random.SeedSequence(0)))
    (mean,) = [one for one in found.verdicts if one.gate == "gradient mean"]
    assert mean.outcome == "fail" and mean.evidence["worst"].startswith("200 steps of Adam")


def drawn_from(stream):
    return lambda number: [int(one) for one in stream.spawn(1)[0].generate_state(number) >> np.uint32(1)]


def model_at_rest():
    made = model()
    with torch.no_grad():
        for parameter in made.encoder.parameters():
            parameter.zero_()
    return made


def with_kl_at_rest(objective):
    return of_model(model_at_rest(), objective)


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


def pixels():  # every number in a plate of its own, more of them than rows
    pyro.clear_param_store()
    net = vae()

    def model(x):
        pyro.module("decoder", net.decoder)
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1).to_event(1))
            with pyro.plate("pixels", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(net.decoder(z[:, 0]), 1), obs=x)

    def guide(x):
        pyro.module("encoder", net.encoder)
        q = net.posterior(x)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(q.mean.unsqueeze(1), q.log_std.exp().unsqueeze(1)).to_event(1))

    return model, guide, Trace_ELBO()


def enumerated():
    pyro.clear_param_store()
    logits = pyro.param("logits", torch.zeros(3, dtype=torch.float64))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(logits=torch.zeros(3)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) + 0.0 * x, 1).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=pyro.param("logits")), infer={"enumerate": "parallel"})

    return model, guide, Trace_ELBO()


def shared():  # one latent of all rows
    pyro.clear_param_store()

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0, 1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1).expand([6]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(pyro.param("m", torch.zeros(())), 1))

    return model, guide, Trace_ELBO()


def exchanged():
    model, guide, elbo = trace_elbo()
    return guide, model, elbo


def renyi_without_rsample():
    return *programs(normal=NonreparameterizedNormal), RenyiELBO(alpha=0, **OPTIONS)
"""

VAE_IN_NUMPYRO = """
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO
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


DECODER = np.array([[1.0, 0, 0, 2, 0, 0], [0, 1, 0, 0, 2, 0], [0, 0, 1, 0, 0, 2]])


def discrete():
    def model(x):
        decoder = numpyro.param("decoder", DECODER)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.ones(3) / 3))
            numpyro.sample("x", dist.Normal(decoder[z], 1).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Categorical(logits=x @ numpyro.param("encoder", DECODER.T / 3)))

    return model, guide, Trace_ELBO()


def svi():  # a net as a tree of parameters, one of them positive, every number in a plate of its own
    def model(x):
        net = numpyro.param("decoder$params", {"layer": {"weight": DECODER[:2] / 2, "bias": DECODER[0]}})
        spread = numpyro.param("spread", 0.7, constraint=dist.constraints.positive)
        with numpyro.plate("data", len(x), dim=-2):
            with numpyro.plate("latents", 2, dim=-1):
                z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            with numpyro.plate("pixels", 6, dim=-1):
                mean = z @ net["layer"]["weight"] + net["layer"]["bias"]
                numpyro.sample("x", dist.Normal(mean, spread), obs=x)

    def guide(x):
        mean, log_std = jnp.split(x @ numpyro.param("encoder", np.tile(DECODER[:2].T / 4, 2)), 2, -1)
        with numpyro.plate("data", len(x), dim=-2), numpyro.plate("latents", 2, dim=-1):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(log_std)))

    return SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())


def wrong_scale():
    def half(x):
        with numpyro.handlers.scale(scale=0.9):
            return model(x)

    return half, guide, RenyiELBO(alpha=0, num_particles=5)
"""


IN_PYTHAE = """
import torch
from pythae.models import CIWAE, IWAE, MIWAE, PIWAE, VAE, BetaVAE
from pythae.models import BetaVAEConfig, CIWAEConfig, IWAEConfig, MIWAEConfig, PIWAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from tests.test_blackboxes import model as vae


class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.net = vae().encoder

    def forward(self, x):
        mean, log_variance = self.net(x).chunk(2, -1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.net = vae().decoder

    def forward(self, z):
        return ModelOutput(reconstruction=self.net(z))


def of(kind, config, **options):
    return kind(config(input_dim=(6,), latent_dim=1, reconstruction_loss="mse", **options), Encoder(), Decoder())


def vae_(): return of(VAE, VAEConfig)
def beta_vae(): return of(BetaVAE, BetaVAEConfig, beta=2.0)
def iwae(): return of(IWAE, IWAEConfig, number_samples=5)
def ciwae(): return of(CIWAE, CIWAEConfig, number_samples=5, beta=0.5)
def miwae(): return of(MIWAE, MIWAEConfig, number_samples=5, number_gradient_estimates=3)
def piwae(): return of(PIWAE, PIWAEConfig, number_samples=5, number_gradient_estimates=3)
"""


@pytest.fixture
def certify_in(tmp_path, monkeypatch):
    for name, text in (("in_pyro", VAE_IN_PYRO), ("in_numpyro", VAE_IN_NUMPYRO), ("in_pythae", IN_PYTHAE)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    common = ["--data", "tests.test_blackboxes:data", "--quick", "--out", str(tmp_path / "made")]
    return lambda *arguments: CliRunner().invoke(app, ["certify", *arguments, *common, "--json"])


def failed_in(kind, name):
    return failed_of(build_claim(kind, name, 0, data(), Objective(), None))


@PYRO
@QUIET
@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("trace_elbo", set()),
        ("half_of_the_data", set()),
        ("renyi", set()),
        ("renyi_half_of_the_data", {"bound value", "gradient mean"}),
        ("renyi_without_rsample", {"contract"}),  # the trusted score-function gradient is noisy at 200 draws
    ],
)
def test_pyro(name, failed, certify_in):
    """What reports/peers says of Pyro: without a path there is no gradient; the rest is right."""
    found = failed_in("pyro", f"in_pyro:{name}")
    assert failed <= found <= failed | ({"gradient mean"} if "contract" in failed else set())


@NUMPYRO
@QUIET
@pytest.mark.parametrize(("name", "failed"), [("renyi", set()), ("wrong_scale", {"bound value", "gradient mean"})])
def test_numpyro(name, failed, certify_in):
    assert failed_in("numpyro", f"in_numpyro:{name}") == failed


@PYRO
@QUIET
def test_a_plate_over_pixels_is_none_over_rows(certify_in):
    """At one seed the noise is one: the loss a row is minus the mean log-weight, of four rows of six numbers each."""
    claim, x = build_claim("pyro", "in_pyro:pixels", 0, data()[:4], Objective(), None), data()[:4].numpy()
    (value, found), (other, wanted) = (
        box.value_and_gradient(claim.box.parameters, x, 3) for box in (claim.box, claim.trusted)
    )
    assert value == pytest.approx(other)
    for name, gradient in wanted.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-7, atol=1e-9)


@PYRO
@QUIET
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("enumerated", "The values of 'z' are enumerated"),
        ("shared", "The site 'mean' must be in one plate over the 32 rows of x"),
        ("exchanged", "The guide must observe nothing, and observes 'x'"),
    ],
)
def test_programs_without_a_bound_by_row_are_refused_in_a_sentence(name, sentence, certify_in):
    result = certify_in("--pyro", f"in_pyro:{name}")
    assert result.exit_code == 2 and sentence in " ".join(result.output.split())


@NUMPYRO
@QUIET
def test_numpyros_trees_plates_and_constraints_are_taken_as_svi_takes_them(certify_in):
    """Of an SVI object; the positive parameter is unconstrained, log 0.7, in the box."""
    claim = build_claim("numpyro", "in_numpyro:svi", 0, data(), Objective(), None)
    at = claim.box.parameters
    assert {name: np.shape(value) for name, value in at.items()} == {
        "decoder$params['layer']['bias']": (6,),
        "decoder$params['layer']['weight']": (2, 6),
        "encoder": (6, 4),
        "spread": (),
    }
    assert float(at["spread"]) == pytest.approx(math.log(0.7))
    assert failed_of(claim) == set()


@NUMPYRO
@QUIET
def test_latents_without_a_path_get_a_score_function_term(certify_in):
    """The trusted mean is the exact gradient, a sum over the three values; NumPyro's has no part along the encoder.

    1,000 draws of 24 numbers beyond 4.9 standard errors: false alarms 2e-5.
    """
    import jax
    import jax.numpy as jnp

    claim, x = build_claim("numpyro", "in_numpyro:discrete", 0, data(), Objective(), None), data().numpy()
    at = claim.box.parameters

    def exact(given):
        log_q = jax.nn.log_softmax(x @ given["encoder"], -1)
        density = -0.5 * ((x[:, None] - given["decoder"]) ** 2).sum(-1) - 3 * jnp.log(2 * jnp.pi)
        return -(jnp.exp(log_q) * (density + jnp.log(1 / 3) - log_q)).sum(-1).mean()

    with jax.enable_x64(True):
        wanted = jax.grad(exact)({name: jnp.asarray(value) for name, value in at.items()})
    flat = torch.cat([torch.tensor(np.array(wanted[name])).flatten() for name in at])
    for box, right in ((claim.trusted, True), (claim.box, False)):
        _, found = draw(box, at, x, range(1000))
        t = (found.mean(0) - flat) / (found.std(0) / 1000**0.5).clamp(min=1e-12)
        assert (t.abs().max() < 4.9) == right


@PYTHAE
@QUIET
@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("vae_", set()),
        ("beta_vae", set()),
        ("iwae", {"bound value"}),
        ("ciwae", {"bound value"}),
        ("miwae", {"bound value", "gradient mean"}),
        ("piwae", {"bound value", "gradient mean"}),
    ],
)
def test_pythae(name, failed, certify_in):
    """What reports/peers says of Pythae: weighted means for bounds, K and M exchanged, added gradients."""
    assert failed_in("pythae", f"in_pythae:{name}") == failed


@PYTHAE
@QUIET
@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("iwae", ""),
        ("ciwae", "combination of 0.5 ELBO and 0.5 IWAE (K=5)"),
        ("miwae", "mean of 3 IWAE bounds (K=5)"),
        ("piwae", "mean of 3 IWAE bounds (K=5) by the encoder and IWAE bound (K=15) by the decoder"),
    ],
)
def test_the_bound_of_a_class_is_told_in_words(name, promise, certify_in):
    assert build_claim("pythae", f"in_pythae:{name}", 0, data(), Objective(), None).promise == promise


class Leaving(Faulty):
    """Right where it starts; anywhere else it refuses, as Pyro does where a run has overflowed."""

    def __init__(self):
        super().__init__(lambda value, gradient: (value, gradient))

    def value_and_gradient(self, parameters, x, seed):
        if any(not np.array_equal(value, self.parameters[name]) for name, value in parameters.items()):
            raise ValueError("the scale must be positive")
        return super().value_and_gradient(parameters, x, seed)


def test_a_run_that_cannot_go_on_does_not_take_the_verdicts_with_it():
    claim = Claim(Leaving(), of_model(model(), IWAE), IWAE, "bound of mine")
    found = certify_box(claim, data().numpy(), name="leaving", level="fast")
    assert not found.findings.guarantee.decay.compared and len(found.verdicts) == 4
    assert "for the bound of mine" in str(found) and found.to_dict()["question"]["objective"]["name"] == "bound of mine"
    assert "3 of 3 seeds left the finite numbers, and 0 with vaebench's pathwise" in found.to_dict()["tiles"][3]["text"]


def test_training_code_in_torch_is_a_box():
    """Its gradient is that of the same loss, and torch's generator stays where it is."""
    made, state = model(), torch.get_rng_state()

    def backward(x):
        loss = Loss(made, pathwise, IWAE)(x, draw_noise(made, x, IWAE))
        loss.backward()
        return float(loss.detach())

    box, trusted = BackwardBox(made, backward), of_model(model(), IWAE)
    (value, found), (other, wanted) = (
        one.value_and_gradient(trusted.parameters, data().numpy(), 3) for one in (box, trusted)
    )
    assert value == pytest.approx(other) and torch.equal(state, torch.get_rng_state())
    for name, gradient in wanted.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name one thing to certify"),
        (["pathwise", "--pyro", "m:f"], "Name one thing to certify"),
        (["--black-box", "tests.test_blackboxes:right"], "needs --model"),
        (["--black-box", "tests.test_blackboxes:data"], "must return a black box"),
        (["--pyro", "tests.test_blackboxes:data"], "must return three things"),
        (["--black-box", "tests.test_blackboxes:broken", "--model", "tests.test_blackboxes:model"], "failed with Zero"),
    ],
)
def test_what_cannot_be_asked_of_a_box(arguments, sentence, certify_in):
    result = certify_in(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.output.split())


def right():
    return of_model(model(), Objective())


def broken():
    return Faulty(lambda value, gradient: 1 / 0)


class Elsewhere:
    """A box that waits for another process, which sends it numbers of no meaning."""

    parameters = of_model(model(), IWAE).parameters

    def value_and_gradient(self, parameters, x, seed):
        time.sleep(0.002)
        draw = np.random.default_rng(seed).standard_normal
        return draw(), {name: draw(value.shape) for name, value in parameters.items()}


@pytest.mark.parametrize(
    ("box", "clock"), [(Elsewhere(), WALL_CLOCK), (Faulty(lambda value, gradient: (value, gradient)), PROCESSOR_TIME)]
)
def test_a_box_is_timed_by_the_processor_unless_it_works_elsewhere(box, clock, tmp_path):
    """Where it does is decided by the share of its time that this process works: a twentieth, or all."""
    found = certify_box(against_model(box, model(), IWAE), data().numpy()[:8], level="fast", name="box")
    assert found.findings.cost.clock == clock
    html = found.save(tmp_path / "box").read_text()
    assert f"by {clock}." in html and "× vaebench&#39;s pathwise" in html and "× pathwise" not in html
    assert {point.batch for point in found.findings.cost.points} == {8, 32, 128}
    assert {point.batch for point in found.findings.noise.points} == {8, 32}


class Rowed(Faulty):
    """A box with a parameter for each of 32 rows, which takes no others."""

    def __init__(self):
        super().__init__(lambda value, gradient: (value, gradient))

    def value_and_gradient(self, parameters, x, seed):
        if len(x) != 32:
            raise ValueError("32 rows, please")
        return super().value_and_gradient(parameters, x, seed)


def test_a_box_of_its_own_rows_alone_is_judged_on_them():
    found = certify_box(against_model(Rowed(), model(), IWAE), data().numpy(), level="fast", name="rowed")
    assert [one.gate for one in found.verdicts] == ["contract", "bound value", "gradient mean"]
    assert {point.batch for point in found.findings.cost.points} == {32}
    assert "cost at B = 8" in " ".join(found.findings.left_out) and "B = 128" in " ".join(found.findings.left_out)
