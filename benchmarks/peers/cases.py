"""Which estimators are judged, what their names promise, and what those that fail turn out to be."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType

from benchmarks.peers import targets
from benchmarks.peers.steps import TRUSTED, Adapter, plain
from benchmarks.peers.targets import Targeted, bound
from vaebench.gates.laws import ASYMPTOTIC
from vaebench.gates.variances import SLOPE
from vaebench.gradients.objectives import Objective

LIBRARIES = ("with_pyro", "with_pythae", "with_numpyro")
K, M = 5, 3
WEIGHTED_MEAN = (
    "the gradient is right; the loss, by which the trainer chooses its best model, is minus the weighted mean of the "
    "log-weights, below minus the bound by log K less the weights' entropy"
)
ELBO, IWAE, VR = Objective(K), Objective(K, 0.0), Objective(K, 0.5)


@dataclass(frozen=True)
class Law:
    """A variance that should fall as 1/`factor` between two settings; `allowed` of its log-log slope beside noise."""

    low: tuple[Adapter, Objective]
    high: tuple[Adapter, Objective]
    factor: int
    allowed: float


@dataclass(frozen=True)
class Case:
    """One estimator and its claims.

    Attributes:
        peer: library and estimator.
        promise: the bound that its name and documentation promise, in words.
        adapter: the estimator.
        objective: of the adapter.
        promised: loss and gradient of that bound.
        reports: whether the value is meant for the bound.
        laws: by letter, K or M.
        found: for an estimator that fails: what it is, in words and as a target.
        reproducer: file of the minimal script that shows the failure.
        remark: a convention that differs and is no fault.
    """

    peer: str
    promise: str
    adapter: Adapter
    objective: Objective
    promised: Targeted
    reports: bool = True
    laws: dict[str, Law] | None = None
    found: tuple[str, Targeted] | None = None
    reproducer: str = ""
    remark: str = ""


def simple(peer: str, adapter: Adapter, objective: Objective, **more: object) -> Case:
    """A case of one of the usual bounds, with the law in K where K > 1."""
    laws = {}
    if objective.samples > 1:
        allowed = SLOPE if objective.alpha == 1 else ASYMPTOTIC
        low, high = (replace(objective, samples=k) for k in (8, 32))
        laws["K"] = Law((adapter, low), (adapter, high), 4, allowed)
    promised = bound(objective.samples, objective.alpha, objective.beta)
    options = {"promised": promised, "laws": laws, **more}
    return Case(peer, objective.name, adapter, objective, **options)


def controls() -> Iterator[Case]:
    """This repository's estimators and the plain step: what is right must pass."""
    yield simple("vaebench pathwise", TRUSTED["pathwise"], ELBO)
    yield simple("vaebench pathwise", TRUSTED["pathwise"], IWAE)
    remark = "a surrogate: its value is not reported as a bound"
    yield simple(
        "vaebench doubly_reparameterized", TRUSTED["doubly_reparameterized"], IWAE, reports=False, remark=remark
    )
    yield simple("plain", plain, ELBO)
    yield simple("plain", plain, IWAE)


def pyro(module: ModuleType) -> Iterator[Case]:
    """Pyro's estimators."""
    sums = "Pyro sums over the data set; divided by its size here"
    for name, objective in (
        ("Trace_ELBO", ELBO),
        ("Trace_ELBO, guide without rsample", ELBO),
        ("Trace_ELBO, half of the data", ELBO),
        ("TraceMeanField_ELBO", ELBO),
        ("RenyiELBO", IWAE),
        ("RenyiELBO", VR),
    ):
        yield simple(f"pyro {name}", module.ADAPTERS[name], objective, remark=sums)
    name = "RenyiELBO, half of the data"
    yield simple(
        f"pyro {name}",
        module.ADAPTERS[name],
        IWAE,
        found=("the scale N/B = 2 of the plate is an exponent of the weights", targets.tempered(K, 2.0)),
        reproducer="pyro_renyi_subsampled.py",
        remark="an exponent is what Li & Turner (2016, eq. 9) have for a global latent; here latents are local",
    )
    name = "RenyiELBO, guide without rsample"
    yield simple(
        f"pyro {name}",
        module.ADAPTERS[name],
        IWAE,
        found=(
            "the guide's gradient is zero, the value and the decoder's are right",
            targets.without_encoder(bound(K, 0.0)),
        ),
        reproducer="pyro_renyi_no_rsample.py",
        remark="zero is the gradient of log p(x), the limit of many samples (Pyro issue 3289 is open)",
    )


def pythae(module: ModuleType) -> Iterator[Case]:
    """Pythae's models."""
    adapters, omitted = module.ADAPTERS, targets.without_constant
    mse = "under mse the constant d/2 log(2 pi) is left out of the loss"
    yield simple("pythae VAE", adapters["VAE"], Objective(), promised=omitted(bound()), remark=mse)
    beta = Objective(beta=2.0)
    yield simple("pythae BetaVAE", adapters["BetaVAE"], beta, promised=omitted(bound(beta=2.0)), remark=mse)
    yield simple(
        "pythae IWAE",
        adapters["IWAE"],
        IWAE,
        promised=omitted(bound(K, 0.0)),
        found=(WEIGHTED_MEAN, omitted(targets.weighted_mean(K))),
        reproducer="pythae_iwae_value.py",
        remark=mse,
    )
    promised = targets.mixture((0.5, bound()), (0.5, bound(K, 0.0)))
    found = targets.mixture((0.5, bound()), (0.5, targets.weighted_mean(K)))
    yield replace(
        simple(
            "pythae CIWAE",
            adapters["CIWAE"],
            IWAE,
            promised=omitted(promised),
            found=("the value contains the weighted mean in place of the IWAE bound", omitted(found)),
            reproducer="pythae_iwae_value.py",
            remark=mse,
        ),
        promise=f"half ELBO, half IWAE (K={K})",
    )
    yield from _multiple(module, mse)


def _multiple(module: ModuleType, mse: str) -> Iterator[Case]:
    omitted = targets.without_constant
    few, many = Objective(2, 0.0), Objective(8, 0.0)
    laws = {
        "K": Law((module.multiple(M), few), (module.multiple(M), many), 4, ASYMPTOTIC),
        "M": Law((module.multiple(2), IWAE), (module.multiple(8), IWAE), 4, SLOPE),
    }
    yield Case(
        "pythae MIWAE",
        f"mean of M={M} IWAE bounds (K={K})",
        module.multiple(M),
        IWAE,
        omitted(bound(K, 0.0)),
        laws=laws,
        found=(
            f"K and M are exchanged: {K} terms of M={M} samples, and the value is a weighted mean",
            omitted(_value_of(targets.weighted_mean(M), bound(M, 0.0))),
        ),
        reproducer="pythae_miwae_axes.py",
        remark=mse,
    )
    sum_of_both = targets.mixture((1.0, bound(M, 0.0)), (1.0, bound(K * M, 0.0)))
    yield Case(
        "pythae PIWAE, its trainer",
        f"encoder: mean of M={M} IWAE bounds (K={K}); decoder: IWAE (K={K * M})",
        module.partial(M),
        IWAE,
        omitted(targets.blocks(bound(K, 0.0), bound(K * M, 0.0))),
        found=(
            "the encoder gets the sum of both gradients, K and M are exchanged in the first",
            omitted(_value_of(targets.weighted_mean(K * M), targets.blocks(sum_of_both, bound(K * M, 0.0)))),
        ),
        reproducer="pythae_piwae_encoder.py",
        remark=mse,
    )


def _value_of(value: Targeted, gradient: Targeted) -> Targeted:
    return lambda model, x: targets.Target(value(model, x).value, gradient(model, x).gradient)


def numpyro(module: ModuleType) -> Iterator[Case]:
    """NumPyro's estimators."""
    sums = "NumPyro sums over the data set; divided by its size here"
    for name, objective in (
        ("Trace_ELBO", ELBO),
        ("TraceMeanField_ELBO", ELBO),
        ("RenyiELBO", IWAE),
        ("RenyiELBO", VR),
        ("RenyiELBO, half of the data", IWAE),
    ):
        yield simple(f"numpyro {name}", module.ADAPTERS[name], objective, remark=sums)


def installed() -> dict[str, ModuleType]:
    """The adapters' modules whose libraries are there, by library."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name.removeprefix("with_")] = importlib.import_module(f"benchmarks.peers.{name}")
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("benchmarks"):
                raise
    return found


def cases() -> Iterator[tuple[str, Case]]:
    """All cases, each with the version of its library."""
    makers = {"pyro": pyro, "pythae": pythae, "numpyro": numpyro}
    yield from (("", case) for case in controls())
    for library, module in installed().items():
        yield from ((module.VERSION, case) for case in makers[library](module))
