"""Studies by name: the empirical section of Surendran et al. (2025), each at several scales.

"smoke" takes about a minute, in float64, on the embedded digits; "default" takes minutes on two cores, on embedded
patches of photographs. Two scales are the paper's own, for a GPU: "paper" on CIFAR-100 and "paper-celeba" on CelebA at
64x64 pixels, with Adam, 100 latents, batches of 256, 100 epochs and 5 runs. Their step sizes are those of the authors'
code, 1e-3 / sqrt(epoch); "paper-theorem" and "paper-celeba-theorem" are the same with 1e-3 / sqrt(n), as the theorem
has them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from vaebench.experiments.experiment import Arm, ComponentSpec, Experiment, Measures, grid
from vaebench.experiments.studies import Study
from vaebench.gradients.objectives import Objective
from vaebench.support.registry import Registry
from vaebench.training.schedules import inverse_sqrt, per_epoch

Preset = Callable[["Scale"], Study]
PRESETS: Registry[Preset] = Registry("preset", "vaebench.presets")
SEEDS = (0, 1, 2, 3, 4)
MANY = 50  # samples whose 2,000 compiled steps save more than their compilation takes; of fewer, recorded ones serve


class Scale(NamedTuple):
    """The experiment that a scale's studies vary.

    Attributes:
        name: of the scale.
        base: an ELBO VAE under Adam.
        samples: values of K.
        batches: values of B.
    """

    name: str
    base: Experiment
    samples: tuple[int, ...]
    batches: tuple[int, ...]


def _mlp(hidden: tuple[int, ...], latents: int, variance: float) -> ComponentSpec:
    """A small net with the likelihood of the paper's theorem, N(G(z), c^2 I)."""
    options = {"activations": ComponentSpec("relu"), "likelihood": ComponentSpec("gaussian", {"variance": variance})}
    return ComponentSpec("mlp_vae", {"hidden": list(hidden), "latents": latents} | options)


SMOKE = Scale(
    "smoke",
    Experiment(
        ComponentSpec("digits"), _mlp((12,), 2, 0.1), Objective(), "pathwise", ComponentSpec("adam"),
        inverse_sqrt(0.03), 60, 32,
        seeds=SEEDS[:3], measures=Measures(4, 4, 64, 200, 50, 20), dtype="float64",
    ),
    (1, 5),
    (8, 32),
)  # fmt: skip
DEFAULT = Scale(
    "default",
    Experiment(
        ComponentSpec("patches", {"size": 8}), _mlp((32, 32), 4, 0.1), Objective(), "pathwise", ComponentSpec("adam"),
        inverse_sqrt(0.003), 8000, 256, seeds=SEEDS, measures=Measures(8, 16, 256, 2000, 5000, 200),
    ),
    (1, 5, 10, 50, 100),
    (8, 32, 128, 512),
)  # fmt: skip
BATCH, EPOCHS = 256, 100  # of the paper's experiments


def _paper(name: str, data: str, size: int, rows: int, samples: tuple[int, ...]) -> tuple[Scale, Scale]:
    """The paper's experiment on one data set of photographs, by the authors' step sizes and by the theorem's."""
    epoch = math.ceil(rows / BATCH)  # as a loader counts them, the last batch included
    model = ComponentSpec("conv_vae", {"size": size, "latents": 100, "activations": ComponentSpec("relu")})
    base = Experiment(
        ComponentSpec(data), model, Objective(), "pathwise", ComponentSpec("adam"), per_epoch(1e-3, epoch),
        EPOCHS * epoch, BATCH, seeds=SEEDS, measures=Measures(8, 16, 256, 5000, 5000, 1000), device="cuda",
        compiled=True,
    )  # fmt: skip
    batches = (64, BATCH, 1024)
    theorem = replace(base, schedule=inverse_sqrt(1e-3))
    return Scale(name, base, samples, batches), Scale(f"{name}-theorem", theorem, samples, batches)


PAPER = (
    *_paper("paper", "cifar100", 32, 50_000, (1, 5, 10, 50, 100)),
    *_paper("paper-celeba", "celeba", 64, 162_770, (1, 5, 10)),
)
SCALES: Mapping[str, Scale] = {scale.name: scale for scale in (SMOKE, DEFAULT, *PAPER)}


def preset(name: str, scale: str) -> Study:
    """A study by name, at the scale "smoke", "default", or one of the paper's, as `SCALES` lists them.

    Returns:
        The study.

    Raises:
        ValueError: if there is no such scale.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}.")
    return PRESETS[name](SCALES[scale])


def _shorter(base: Experiment, scale: Scale) -> Experiment:
    """At the default scale, fewer and smaller steps, where arms cost more or the trend is plain early."""
    return replace(base, steps=2000, batch_size=64) if scale.name == "default" else base


def _study(name: str, scale: Scale, question: str, axis: str, arms: tuple[Arm, ...]) -> Study:
    return Study(name, scale.name, question, axis, arms)


@PRESETS.register
def activations(scale: Scale) -> Study:
    """SoftClip at s = 1, 2, 5, 10 against ReLU."""
    clips = [ComponentSpec("soft_clip", {"sharpness": float(s)}) for s in (1, 2, 5, 10)]
    arms = grid(scale.base, activations=[ComponentSpec("relu"), *clips])
    named = {"relu": "ReLU", "soft_clip": "SoftClip"}
    arms = tuple(Arm(" ".join(named.get(word, word) for word in arm.label.split()), arm.experiment) for arm in arms)
    arms = tuple(Arm(arm.label.replace("sharpness=", "s=").replace(".0", ""), arm.experiment) for arm in arms)
    question = "Does a ReLU net, which breaks the theorem's smoothness assumption, train like soft-clipped ones?"
    return _study("activations", scale, question, "activation", arms)


@PRESETS.register
def samples(scale: Scale) -> Study:
    """IWAE over the number of samples K."""
    probes = ("gradient", "encoder_snr", "bounds", "largest_parameter", "log_likelihood")
    few = replace(scale.base.measures, rows=max(1, scale.base.measures.rows // 16))
    base = replace(scale.base, objective=Objective(alpha=0), probes=probes, measures=few)
    base = _shorter(base, scale)
    question = "What does a larger number of samples K do to IWAE training, and to the encoder's gradient?"
    arms = []
    for arm in grid(base, K=scale.samples):
        many = scale.name == "default" and arm.experiment.objective.samples >= MANY
        arms.append(Arm(arm.label, replace(arm.experiment, compiled=base.compiled or many)))
    return _study("samples", scale, question, "K", tuple(arms))


@PRESETS.register
def batch(scale: Scale) -> Study:
    """The batch size B."""
    question = "How does the batch size B change the gradient norm that a number of steps reaches?"
    return _study("batch", scale, question, "B", grid(_shorter(scale.base, scale), B=scale.batches))


@PRESETS.register
def beta(scale: Scale) -> Study:
    """The weight of the Kullback-Leibler term in the beta-VAE."""
    question = "How does the beta-VAE's weight of the KL term change convergence?"
    return _study("beta", scale, question, "beta", grid(_shorter(scale.base, scale), beta=[0.25, 0.5, 1.0, 2.0, 4.0]))


@PRESETS.register
def optimizers(scale: Scale) -> Study:
    """SGD, Adam, AMSGrad, Adagrad and RMSprop, each with a first step C of its own."""
    c = scale.base.schedule.scale
    scales = {"sgd": c / 10, "adam": c, "amsgrad": c, "adagrad": 3 * c, "rmsprop": c / 3}
    arms = []
    for name, value in scales.items():
        one = replace(scale.base, optimizer=ComponentSpec(name), schedule=replace(scale.base.schedule, scale=value))
        curvature = ("curvature",) if name == "sgd" else ()
        arms.append(Arm(f"{name} C={value:.2g}", replace(one, probes=one.probes + curvature)))
    steps = "C / √n" if scale.base.schedule.is_inverse_sqrt else "C / √epoch"
    question = f"Which optimizer brings the gradient norm down fastest under steps {steps}? Does SGD keep its bound?"
    return _study("optimizers", scale, question, "optimizer", tuple(arms))


@PRESETS.register
def estimators(scale: Scale) -> Study:
    """Every estimator of the ELBO at the same B and K, hence at equal compute."""
    base = _shorter(replace(scale.base, objective=Objective(samples=5)), scale)
    names = ["pathwise", "analytic_kl", "doubly_reparameterized", "leave_one_out", "score_function"]
    question = "Which gradient estimator of the ELBO converges fastest at equal compute?"
    return _study("estimators", scale, question, "estimator", grid(base, estimator=names))


@PRESETS.register
def bbvi(scale: Scale) -> Study:
    """Black-box VI: Bayesian linear regression on the diabetes study, under SGD within its smoothness bound."""
    target = ComponentSpec("gaussian_regression", {"noise_variance": 0.5})
    base = Experiment(
        ComponentSpec("diabetes"), ComponentSpec("mean_field", {"target": target}), Objective(samples=8), "pathwise",
        ComponentSpec("sgd"), inverse_sqrt(1e-4), 60 if scale.name == "smoke" else 5000, 1,
        seeds=SEEDS[:3] if scale.name == "smoke" else tuple(range(16)),
        probes=("gradient", "bounds", "curvature", "largest_parameter"), dtype="float64", device="cpu",
        measures=Measures(replicates=64, rows=1),
    )  # fmt: skip
    names = ["pathwise", "analytic_kl", "doubly_reparameterized", "leave_one_out"]
    question = "Does black-box variational inference converge inside the theorem's bound, whatever the estimator?"
    return _study("bbvi", scale, question, "estimator", grid(base, estimator=names))
