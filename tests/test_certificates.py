"""Certificates: our own estimators are certified, faulty ones are refused, and every answer is what it says."""

import errno
import json
import math
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tests.processes import CONTEXT, write_often
from vaebench.cli import app
from vaebench.data import digits
from vaebench.experiments.certifying import ask
from vaebench.experiments.certifying.cost import at_own, measure_cost
from vaebench.experiments.certifying.guarantee import paired_p_value
from vaebench.experiments.certifying.intervals import Interval, mean_ratio, median
from vaebench.experiments.certifying.nets import reference_nets
from vaebench.experiments.certifying.noise import frontier
from vaebench.experiments.certifying.right import judge_all
from vaebench.experiments.certifying.theory_run import on_bed
from vaebench.experiments.comparison import compare
from vaebench.gates.paired import closest, differences
from vaebench.gradients import ESTIMATORS, Objective, analytic_kl, doubly_reparameterized, leave_one_out, pathwise
from vaebench.models import from_encoder_decoder, linear_vae, mlp_vae
from vaebench.report.certificate import FIGURES, Certificate, certify
from vaebench.report.certificate.certificate import require_place
from vaebench.report.certificate.figures import cost
from vaebench.report.certificate.markdown import badge
from vaebench.report.certificate.numbers import SCHEMA
from vaebench.report.certificate.page import page
from vaebench.report.certificate.terminal import WIDTH, lines
from vaebench.report.certificate.words import EXPLAINED
from vaebench.report.writing import names_beside

pytest_plugins = ["pytester"]


def antithetic(model, x, noise, objective):
    return (pathwise(model, x, noise, objective) + pathwise(model, x, -noise, objective)) / 2


def own_draws(model, x, noise, objective):
    return pathwise(model, x, torch.randn_like(noise), objective)


def with_kl_weight(weight):
    def estimator(model, x, noise, objective):
        q = model.posterior(x)
        reconstruction = model.likelihood(q.transport(noise)).log_prob(x).mean(0)
        return reconstruction - weight * objective.beta * q.kl_to_standard_normal()

    return estimator


def changing(model, x, noise, objective):
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    return pathwise(model, x, noise, objective)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(8, 10, batch_first=True), nn.Linear(10, 4)

    def forward(self, x):
        return self.out(self.gru(x.view(-1, 8, 8))[0][:, -1])


class Deciding(nn.Linear):
    def __init__(self):
        super().__init__(64, 4)

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Named(nn.Linear):
    def __init__(self):
        super().__init__(64, 4)

    def forward(self, x):
        return {"mean": super().forward(x)}


def with_encoder(encoder):
    return from_encoder_decoder(encoder, nn.Linear(2, 64), latents=2)


def own_model():
    """A float32 model of one's own, too large for an exact gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 8))
        decoder = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 64))
    return from_encoder_decoder(encoder, decoder, latents=4)


def rows():
    return digits().flatten(1)[:256]


@pytest.fixture(scope="module")
def own():
    return certify(antithetic, own_model(), rows(), level="fast")


@pytest.fixture(scope="module")
def saved(own, tmp_path_factory):
    return own.save(tmp_path_factory.mktemp("certificates") / "antithetic")


@pytest.fixture(scope="module")
def wrong():
    return certify(with_kl_weight(1.02), own_model(), rows(), level="fast", name="wrong")


# Our own estimators, by the fixture that third parties use


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        *((name, Objective()) for name in ("pathwise", "analytic_kl", "doubly_reparameterized")),
        ("leave_one_out", Objective(samples=4)),
    ],
    ids=str,
)
def test_our_own_estimators_are_certified(name, objective, certify):
    """At fixed seeds; a correct estimator fails with probability 3e-4 at most."""
    certify(ESTIMATORS[name], objective=objective, level="fast")


# Right


def test_an_estimator_and_a_model_of_ones_own_are_certified(own):
    assert own.outcome == "pass"
    assert {one.place for one in own.findings.judged} == {"linear VAE", "your model"}
    assert "all 1" in str(own) or "all 2" in str(own)


def test_two_percent_of_the_kl_weight_are_refused_and_named(wrong):
    assert wrong.outcome == "fail"
    paired = next(v for v in wrong.verdicts if v.gate == "gradient mean, paired")
    assert paired.outcome == "fail"
    assert abs(paired.evidence["KL weight off by"] - 0.02) < 5 * paired.evidence["KL weight error"] + 1e-6
    assert "the weight of the KL term is off by +2 %" in str(wrong)


@pytest.mark.parametrize(
    ("fault", "worst"),
    [
        (lambda *a: 1.02 * pathwise(*a), "scale"),
        (lambda m, x, n, o: pathwise(m, x, n.abs(), o), ""),
        (lambda m, x, n, o: pathwise(m, x, n, Objective(o.samples, o.alpha, 0.98 * o.beta)), "KL weight"),
    ],
    ids=["scale", "half of the noise", "beta"],
)
def test_pairs_at_equal_noise_find_faults(fault, worst, generator):
    """At the level of 1e-8; each fault is found at 64 pairs, and pathwise beside analytic_kl is not."""
    model, x = mlp_vae((64,), (10,), 3, generator=generator, dtype=torch.float64), rows().double()
    found = differences(model, fault, Objective(), x, 8, 64, generator)
    assert found.p_value < 1e-8
    assert found.worst.startswith(worst) or found.named[worst].p_value < 1e-8
    assert differences(model, pathwise, Objective(), x, 8, 64, generator, trusted=analytic_kl).p_value > 1e-8


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda m, x, n, o: -pathwise(m, x, n, o), "scale"),
        (lambda *a: 1.1 * pathwise(*a), "scale"),
        (lambda m, x, n, o: pathwise(m, x, n, Objective(o.samples, o.alpha, 0.9 * o.beta)), "KL weight"),
        (lambda m, x, n, o: pathwise(m, x, n.abs(), o), ""),
    ],
    ids=["sign", "scale", "beta", "half of the noise"],
)
def test_only_what_explains_the_difference_is_blamed(fault, named, generator):
    """A gradient of the wrong sign has a wrong KL weight, too, along that direction alone: it is not what is wrong."""
    model, x = mlp_vae((64,), (10,), 3, generator=generator, dtype=torch.float64), rows().double()
    found = differences(model, fault, Objective(), x, 8, 256, generator).named
    explained = {name for name in ("scale", "KL weight") if found[name].share > EXPLAINED}
    assert max(explained, key=lambda name: found[name].share, default="") == named


def test_a_scale_is_measured_in_its_own_units(generator):
    """1.05 of the gradient is off by 0.05 along it, exactly, as pairs at equal noise have it draw by draw."""
    model, x = mlp_vae((64,), (10,), 3, generator=generator, dtype=torch.float64), rows().double()
    found = differences(model, lambda *a: 1.05 * pathwise(*a), Objective(), x, 8, 4000, generator)
    along = found.named["scale"]
    assert abs(along.value - 0.05) < 5 * along.error
    assert 0 < found.smallest("scale") < 0.05


def test_the_trusted_estimator_is_the_nearest_one(generator):
    model, x = mlp_vae((64,), (10,), 3, generator=generator, dtype=torch.float64), rows().double()[:8]
    known = [pathwise, doubly_reparameterized, analytic_kl]
    for one in known:
        assert closest(model, one, known, Objective(), x, generator) is one
    assert closest(model, with_kl_weight(1.1), known, Objective(), x, generator) is analytic_kl


def test_pairs_that_take_many_operations_are_fewer_and_that_is_said():
    """Of two estimators at B = 8 and K = 1: 2 (3 x 2 x 8 (64 x 4 + 2 x 64) - 2 x 8 x 64 x 4) FLOPs, inputs having none.

    Within a limit of 256 pairs all are taken, below it half of them, and below 128 a quarter.
    """
    model = from_encoder_decoder(nn.Linear(64, 4), nn.Linear(2, 64), latents=2)
    one = 2 * (3 * 2 * 8 * (64 * 4 + 2 * 64) - 2 * 8 * 64 * 4)
    for operations, pairs in ((256 * one, 256), (256 * one - 1, 128), (128 * one - 1, 64)):
        question = ask(pathwise, model, rows(), level="fast")
        question = replace(question, level=replace(question.level, operations=operations))
        judged, left_out = judge_all(question, lambda line: None)
        found = next(one.verdict for one in judged if one.place == "your model" and "paired" in one.verdict.gate)
        assert found.evidence["pairs each"] == pairs
        assert any(f"{256 - pairs} of 256 pairs" in line for line in left_out) == (pairs < 256)


def test_pairs_are_even_and_enough(generator):
    with pytest.raises(ValueError, match="even and at least 64, got 63"):
        differences(linear_vae(), pathwise, Objective(), torch.zeros(4, 6), 2, 63, generator)


def test_an_estimator_that_no_bed_suits_is_judged_on_ones_own_model():
    """Left out with its reason; what remains is judged."""

    def of_my_model_only(model, x, noise, objective):
        assert isinstance(model.encoder, nn.Sequential)
        return pathwise(model, x, noise, objective)

    judged, left_out = judge_all(ask(of_my_model_only, own_model(), rows(), level="fast"), lambda line: None)
    assert {one.place for one in judged} == {"your model"}
    assert any("the linear bed" in line and "no attribute 'encoder'" in line for line in left_out)


# Cost and noise


def test_counters_of_twice_the_work_are_twice(own):
    """The antithetic estimator is two pathwise ones: FLOPs exactly, at every point."""
    points = {(p.net, p.estimator, p.samples, p.batch): p for p in own.findings.cost.points}
    for (net, name, k, b), point in points.items():
        if name == "antithetic":
            assert point.flops == 2 * points[net, "pathwise", k, b].flops
    own_point = at_own(own.findings.cost.points, own.findings.question)
    assert own_point is not None and own_point.batch == 8


def test_a_layer_that_passes_a_parameter_on_is_counted():
    """A learned variance leaves its layer as a leaf of the graph, which the hooks of torch's counter refuse."""
    model = from_encoder_decoder(nn.Linear(64, 4), nn.Linear(2, 64), latents=2, likelihood="learned_gaussian")
    cost = measure_cost(ask(pathwise, model, rows(), level="fast"), lambda line: None)
    found = at_own(cost.points, ask(pathwise, model, rows(), level="fast"))
    assert found is not None and found.flops == 3 * 2 * 8 * (64 * 4 + 2 * 64) - 2 * 8 * 64 * 4


def test_flops_grow_in_proportion_to_the_batch(own):
    slopes = [s for s in own.findings.cost.scalings if s.axis == "B"]
    assert slopes and all(s.flops == pytest.approx(1.0) for s in slopes)


def test_adams_ledger_tells_ascent_from_descent():
    """What it allows is kept by pathwise, and is less than nothing when the same gradient's sign is turned."""

    def ascending(model, x, noise, objective):
        return -pathwise(model, x, noise, objective)

    name = "left / right of Adam's ledger"
    right, turned = (on_bed(ask(one, level="fast", optimizer="adam"), [])[2][name] for one in (pathwise, ascending))
    assert right.high < 1 < turned.low


@pytest.mark.parametrize("objective", [Objective(), Objective(samples=3, alpha=0.0)], ids=["ELBO", "IWAE"])
def test_the_prediction_of_the_squared_gradient_holds_of_an_unbiased_gradient_alone(objective):
    """Of 64 seeds at fixed ones: the 95 % interval widened twofold, and a gradient of 1.2 times the size."""

    def larger(model, x, noise, given):
        return 1.2 * pathwise(model, x, noise, given)

    name = "Tₙ / its prediction"
    right, wrong = (on_bed(ask(one, objective=objective, level="fast"), [])[2][name] for one in (pathwise, larger))
    assert abs(right.value - 1) < right.high - right.low < 0.15
    assert wrong.high < 1


def test_the_cost_is_measured_on_two_reference_nets_too(own):
    points = {p.net: p for p in own.findings.cost.points if (p.estimator, p.samples, p.batch) == ("pathwise", 1, 8)}
    assert list(points) == ["your model", "linear 6-2", "mlp 64-200-200-50"]
    assert points["mlp 64-200-200-50"].flops > 1000 * points["linear 6-2"].flops > 0
    assert "linear 6-2" in own.markdown()


def test_the_linear_net_does_not_stand_beside_itself():
    assert [net.name for net in reference_nets(ask(pathwise, level="default"))] == ["mlp 64-200-200-50", "conv 32"]


def test_antithetic_noise_has_a_lower_variance(own):
    """Its 95 % interval over pathwise's lies below one for the decoder, whose gradient is nearly odd in the noise."""
    decoder = next(
        p for p in own.findings.noise.points if (p.estimator, p.block, p.batch) == ("antithetic", "decoder", 8)
    )
    assert decoder.ratio.high < 1


def test_estimators_draw_noise_of_their_own(own):
    """The decoder's gradient is the same function of the noise: equal variances would be the same draws."""
    same = [p.variance.value for p in own.findings.noise.points if (p.block, p.batch) == ("decoder", 8)][:3]
    assert len(set(same)) == 3


def test_the_median_has_its_binomial_interval():
    """Of ten values the second and the ninth: coverage 1 - 2 P(Bin(10, 1/2) <= 1) = 1 - 22/1024 = 0.979."""
    assert median(np.arange(1.0, 11.0)) == Interval(5.5, 2.0, 9.0)


def test_a_ratio_of_means_has_students_interval():
    """(1, 3) over (2, 2): ratio 1, residuals +-1/2, error (1/sqrt 2)/sqrt 2 = 1/2, t(0.975, 1) = 12.706."""
    found = mean_ratio(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert found.value == 1 and found.high == pytest.approx(1 + 12.7062 / 2, rel=1e-4)


def test_the_paired_test_is_students():
    """Differences 1, 2, 3: t = 2 / (1/sqrt 3) = 3.4641 with 2 degrees of freedom, p = 0.0742."""
    assert paired_p_value(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert paired_p_value(np.zeros(3)) == 1


def test_the_frontier_leaves_out_what_is_beaten_in_both():
    efforts = {("fast", 1, 8): (1.0, 9.0), ("beaten", 1, 8): (2.0, 9.5), ("quiet", 1, 8): (3.0, 1.0)}
    assert [name for name, _, _ in frontier(efforts)] == ["fast", "quiet"]


# The files


def test_what_is_saved_is_whole(saved):
    names = {path.name for path in saved.parent.iterdir()}
    assert names == {"index.html", "certificate.json", "certificate.md", "numbers.csv", "badge.svg"}
    document = json.loads((saved.parent / "certificate.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == SCHEMA and document["outcome"] == "pass"
    assert sum(path.stat().st_size for path in saved.parent.iterdir()) < 400_000


def test_parquet_holds_the_frame(own, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    page = own.save(tmp_path / "antithetic", parquet=True)
    pd.testing.assert_frame_equal(pd.read_parquet(page.parent / "numbers.parquet"), own.frame)


def test_without_pyarrow_parquet_is_refused_before_anything_is_written(own, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'vaebench\[parquet\]'"):
        own.save(tmp_path / "antithetic", parquet=True)
    assert not any(tmp_path.iterdir())


def test_every_key_of_the_schema_is_documented(own):
    documented = (Path(__file__).parents[1] / "docs" / "certificates.md").read_text()
    assert all(f"`{key}`" in documented for key in own.to_dict())


def test_the_page_asks_for_nothing_from_elsewhere(saved):
    """It opens from a disk without a network: no source, style, script or font has an address."""
    html = saved.read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(
        a.startswith(("#", "data:")) or a in {"certificate.json", "certificate.md", "numbers.csv"} for a in addresses
    )
    assert "@import" not in html and "url(http" not in html
    assert html.count("<svg") == len(FIGURES)
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_what_is_not_a_certificate_is_left_alone(own, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="something other than a certificate"):
        own.save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("unwritable", ["file/below", "/proc/certificates/mine"])
def test_where_nothing_can_be_written_is_known_before(unwritable, tmp_path):
    """Afterwards everything is as it was: no directory is left."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Nothing can be written to"):
        require_place(tmp_path / unwritable / "mine")
    require_place(tmp_path / "new" / "below" / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_certificate_of_an_older_schema_is_replaced_whole(own, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "certificate.json").write_text('{"schema": 0}')
    (tmp_path / "mine" / "figures.svg").write_text("of an older page")
    page = own.save(tmp_path / "mine")
    assert not (page.parent / "figures.svg").exists() and [one.name for one in tmp_path.iterdir()] == ["mine"]
    assert json.loads((page.parent / "certificate.json").read_text())["schema"] == SCHEMA


def test_a_name_that_no_file_can_have_is_refused_before(tmp_path):
    with pytest.raises(ValueError, match="File name too long"):
        require_place(tmp_path / ("long" * 80))
    assert not any(tmp_path.iterdir())


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(own, tmp_path):
    for left in names_beside(tmp_path / "mine"):
        left.mkdir()
        (left / "index.html").write_text("half of a page")
    require_place(tmp_path / "mine")
    own.save(tmp_path / "mine")
    own.save(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_two_that_write_to_one_place_at_once_leave_one_of_them_whole(tmp_path):
    """Three hundred times each; the place is the last one's, and nothing else is left."""
    place = tmp_path / "made" / "mine"
    place.parent.mkdir()
    runs = [CONTEXT.Process(target=write_often, args=(place, text)) for text in "12"]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    assert len({path.read_text() for path in place.iterdir()}) == 1 and len(list(place.iterdir())) == 2
    assert [path.name for path in place.parent.iterdir()] == ["mine"]


def test_a_name_is_text_wherever_it_stands(own):
    renamed = replace(own.findings.question, name="<script>alert(1)</script>|x", model_name="[a](b)")
    found = Certificate(replace(own.findings, question=renamed))
    assert "<script>alert" not in page(found.findings)
    assert "<script>" not in found.markdown() and r"\|x" in found.markdown()
    assert "<script>" not in badge(found.findings)
    assert found.file_name == "script-alert-1-script-x"


def test_the_refusal_takes_an_earlier_certificates_place_and_stands_on_the_first_screen(wrong, saved, tmp_path):
    shutil.copytree(saved.parent, tmp_path / "wrong")
    html = wrong.save(tmp_path / "wrong").read_text()
    first = html[html.index("<header>") : html.index('<div class="tiles">')]
    assert "is refused" in first and 'class="verdict bad"' in first and "KL term is off by +2 %" in first


def test_every_number_is_in_the_frame(own):
    table = own.frame
    assert set(table["section"]) == {"right", "cost", "noise", "guarantee"}
    flops = table[
        (table["quantity"] == "flops") & (table["estimator"] == "antithetic") & (table["place"] == "your model")
    ]
    point = at_own(own.findings.cost.points, own.findings.question)
    assert point is not None and point.flops in set(flops["value"])
    statistics = table[table["quantity"].str.endswith(": statistic", na=False)]
    assert len(statistics) == len(own.verdicts) and set(statistics["state"]) == {"pass"}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_matplotlib_figure(name, own):
    figure = own.figure(name)
    assert isinstance(figure, matplotlib.figure.Figure) and figure.axes
    assert (
        figure.get_figwidth() <= 4.4
    )  # inches: at the 364 pixels of a phone its letters of 9 points are 10 pixels high


def test_a_terminal_has_eighty_columns_and_the_verdict_first(own, wrong):
    for certificate, word in ((own, "CERTIFIED"), (wrong, "REFUSED")):
        for verbose in (False, True):
            printed = list(lines(certificate.findings, verbose))
            assert printed[0].startswith(word) and max(map(len, printed)) <= WIDTH
    gates = [line for line in lines(wrong.findings) if line.startswith(("pass ", "FAIL "))]
    assert len(gates) == len(wrong.verdicts) and gates[0].startswith("FAIL")


def test_gates_are_told_apart_in_a_terminal_where_the_place_has_a_long_name(own):
    long = [replace(one, place="linear VAE with one latent") for one in own.findings.judged]
    printed = [line[9:48] for line in lines(replace(own.findings, judged=tuple(long))) if line.startswith("pass ")]
    assert len(set(printed)) == len({one.verdict.gate for one in long})


def test_a_notebook_shows_the_sentence(own):
    assert str(own) in own._repr_html_().replace("&#39;", "'")


# What cannot be asked


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": own_model()}, "there is no data"),
        ({"data": rows()}, "there is no model"),
        ({"level": "slow"}, "level must be"),
        ({"scale": 0}, "scale must be positive"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"batch_size": 257}, "batch_size must be at most 256, the number of rows of the data, got 257"),
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"objective": Objective(alpha=0.5), "estimator": analytic_kl}, "analytic_kl is defined for the ELBO"),
        ({"estimator": leave_one_out}, "at least 2 samples"),
        (
            {"estimator": lambda *a: pathwise(*a).mean()},
            r"one surrogate per example, shape \(B,\) = \(2,\) .* got \(\)",
        ),
        ({"estimator": lambda *a: (pathwise(*a), 0)}, "one surrogate per example.* got a tuple"),
        ({"estimator": lambda *a: None}, "one surrogate per example.* got a NoneType"),
        ({"estimator": lambda *a: math.nan * pathwise(*a)}, "is not finite at the start"),
        ({"estimator": lambda *a: 1j * pathwise(*a)}, "must give real floating-point numbers, got torch.complex64"),
        ({"estimator": lambda *a: pathwise(*a).long()}, "must give real floating-point numbers, got torch.int64"),
        ({"estimator": lambda *a: 1 / 0}, "failed with ZeroDivisionError"),
        ({"estimator": lambda *a: pathwise(*a).detach()}, "detached"),
        ({"estimator": lambda *a: sys.exit(3)}, "failed with SystemExit: 3"),
        ({"estimator": changing}, "Estimator 'changing' changes 'W' of the model"),
        ({"model": with_encoder(Recurrent()), "data": rows()}, r"'encoder.gru' \(GRU\) failed under torch.func.vmap"),
        ({"model": with_encoder(Deciding()), "data": rows()}, "torch.where in place of if"),
        ({"model": with_encoder(Named()), "data": rows()}, "The encoder must return a mean and a spread.* got dict"),
        ({"estimator": own_draws}, "declare more by vaebench.gradients.noise_shape"),
        ({"model": nn.Identity(), "data": rows()}, "must be an nn.Module with latents, posterior and likelihood"),
        ({"model": own_model().requires_grad_(False), "data": rows()}, "No parameter of EncoderDecoder is trained"),
        ({"model": own_model(), "data": rows()[:, :60]}, r"x must be \(B, 64\)"),
        ({"model": own_model(), "data": rows() * math.nan}, "NaN or infinite"),
        ({"model": own_model(), "data": (rows() > 0.5).to(torch.uint8)}, "bytes of at most 1"),
        ({"model": own_model(), "data": rows()[:0]}, "B at least 1"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(options, sentence):
    with pytest.raises((ValueError, LookupError), match=sentence):
        ask(**({"estimator": pathwise} | options))


def test_an_own_function_of_a_built_in_name_is_told_apart():
    def pathwise(model, x, noise, objective):
        return antithetic(model, x, noise, objective)

    assert ask(pathwise).name == "pathwise (yours)"


# The command line

MINE = """
from torch import nn
from vaebench.data import digits
from vaebench.gradients import pathwise
from vaebench.models import from_encoder_decoder

def data():
    return digits().flatten(1)

def model():
    return from_encoder_decoder(nn.Linear(64, 4), nn.Linear(2, 64), latents=2)

def scalar(model, x, noise, objective):
    return pathwise(model, x, noise, objective).mean()

def in_cuda():
    raise AssertionError("Torch not compiled with CUDA enabled")

def other_output():
    return from_encoder_decoder(nn.Linear(64, 4), nn.Linear(2, 60), latents=2)

calls = []

def interrupted(model, x, noise, objective):
    calls.append(1)
    if len(calls) > 20:
        raise KeyboardInterrupt
    return pathwise(model, x, noise, objective)

def needy(size):
    return model()

def nothing():
    return None

def leaving():
    raise SystemExit(4)
"""


DATA = ("--data", "my_library:data")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_library.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return lambda *arguments: CliRunner().invoke(app, ["certify", *arguments])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pathwize"], "did you mean 'pathwise'"),
        (["no_such_module:f"], "No module named 'no_such_module'"),
        (["my_library:scalr"], "did you mean 'scalar'"),
        (
            ["my_library:scalar", "--model", "my_library:model", "--data", "my_library:data"],
            "one surrogate per example",
        ),
        (["pathwise", "--model", "my_library:needy", "--data", "my_library:data"], "needs the argument 'size'"),
        (["pathwise", "--model", "my_library:nothing", "--data", "my_library:data"], "from_encoder_decoder"),
        (["pathwise", "--data", "my_library:nothing"], "must return a tensor"),
        (["pathwise", "--model", "my_library:leaving", *DATA], "my_library:leaving cannot be made (SystemExit: 4"),
        (["pathwise", "--data", "my_library:leaving"], "my_library:leaving cannot be made (SystemExit: 4"),
        (["pathwise", "--model", "my_library:model"], "those are rows of linear_gaussian; name your data by --data"),
        (["pathwise", "--alpha", "2"], "alpha must be in [0, 1]"),
        (["pathwise", "--optimizer", "sdg"], "did you mean 'sgd'"),
        (["pathwise", "--model", "my_library:in_cuda", *DATA], "my_library:in_cuda cannot be made"),
        (["pathwise", "--model", "my_library:other_output", *DATA], "must be (B, 60) for this model"),
        (["pathwise", "--out", "my_library.py"], "Nothing can be written to my_library.py"),
        (["pathwise", "--samples", "1000000000"], "samples must be at most"),
        (["pathwise", "--seed", "-1"], "seeds must be integers of at least 0"),
    ],
)
def test_a_command_that_cannot_be_asked_exits_with_two(mine, arguments, sentence):
    result = mine(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.output.split()) and "Traceback" not in result.output


def test_what_a_library_prints_is_no_part_of_the_answer(mine, tmp_path):
    (tmp_path / "my_library.py").write_text('print("hello")\n' + MINE)
    sys.modules.pop("my_library", None)
    result = mine("my_library:scalar", "--json")
    assert result.exit_code == 2 and result.stdout == "" and "hello" in result.stderr


def test_ctrl_c_leaves_nothing_behind(mine, tmp_path):
    result = mine("my_library:interrupted", "--quick")
    assert result.exit_code == 1 and "nothing was written" in result.output
    assert not (tmp_path / "certificates").exists()


def test_a_full_disk_does_not_take_the_answer_with_it(mine, own, tmp_path, monkeypatch):
    """Ten minutes' work is printed all the same; the exit status says that something broke."""

    def full(self, text, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr("vaebench.experiments.certifying.find", lambda question, progress: own.findings)
    monkeypatch.setattr(Path, "write_text", full)
    result = mine("pathwise")
    assert result.exit_code == 1 and "CERTIFIED: antithetic is certified" in result.stdout
    assert "No space left on device" in result.stderr and "No file was written" in result.stderr
    assert "The page:" not in result.stdout and not any((tmp_path / "certificates").iterdir())


def test_an_earlier_certificate_is_replaced_and_that_is_said(mine, own, monkeypatch):
    monkeypatch.setattr("vaebench.experiments.certifying.find", lambda question, progress: own.findings)
    first, second = mine("pathwise"), mine("pathwise")
    assert "in place of an earlier one" not in first.stdout and "in place of an earlier one" in second.stdout


def test_the_shell_completes_registered_names():
    """As the script that `vaebench --install-completion` writes asks for it."""
    for words, wanted in (("certify doubly", ["doubly_reparameterized"]), ("check --model conv", ["conv_vae"])):
        asked = {"_VAEBENCH_COMPLETE": "complete_bash", "COMP_WORDS": f"vaebench {words}"}
        asked["COMP_CWORD"] = str(len(words.split()))
        result = CliRunner().invoke(app, [], prog_name="vaebench", env=asked)
        assert result.stdout.split() == wanted


# Across commits


def test_two_certificates_are_compared(saved, wrong, tmp_path):
    """What crossed is what failed; a certificate beside itself has nothing that moved."""
    before, after = saved.parent / "certificate.json", wrong.save(tmp_path / "wrong").parent / "certificate.json"
    after.write_text(after.read_text().replace('"name": "wrong"', '"name": "antithetic"'))
    crossed = {row.name for row in compare(str(before), str(after), tmp_path) if row.kind == "crossed"}
    assert "antithetic: linear VAE: gradient mean" in crossed
    assert all(row.kind == "same" for row in compare(str(before), str(before), tmp_path))


def test_the_fixture_keeps_claims_that_compare_reads(pytester, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)  # pytest-benchmark keeps no report in a process of several
    pytester.makepyfile(
        """
        from vaebench.gradients import pathwise

        def mine(model, x, noise, objective):
            return pathwise(model, x, noise, objective)

        def shrunk(model, x, noise, objective):
            return 0.9 * pathwise(model, x, noise, objective)

        def test_mine(certify):
            certify(mine, level="fast", name="mine")

        def test_shrunk(certify):
            certify(shrunk, level="fast", name="mine")
        """
    )
    pytester.makeconftest("import torch; torch.set_num_threads(1)")
    result = pytester.runpytest_subprocess(
        "-p", "vaebench.testing", "-p", "no:xdist", "--benchmark-json=report.json", "-q"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*REFUSED: mine is refused*"])
    report = json.loads((pytester.path / "report.json").read_text())
    by_name = {entry["name"]: entry for entry in report["benchmarks"]}
    assert all(not math.isnan(one["slack"]) for one in by_name["test_mine"]["extra_info"]["claims"].values())
    before, after = pytester.path / "before.json", pytester.path / "after.json"
    for path, test in ((before, "test_mine"), (after, "test_shrunk")):
        kept = by_name[test] | {"fullname": "test_mine"}
        path.write_text(json.dumps(report | {"benchmarks": [kept]}))
    crossed = {row.name for row in compare(str(before), str(after), pytester.path) if row.kind == "crossed"}
    assert "test_mine: mine: linear VAE: gradient mean" in crossed


def test_noise_with_which_a_bed_diverges_is_no_fault_and_a_fault_is_found_with_smaller_steps():
    """The score function is unbiased, and too noisy for 64 members' steps of 0.01; its negative climbs everywhere."""
    found = {}
    for estimator in (ESTIMATORS["score_function"], uphill):
        judged, left_out = judge_all(ask(estimator, level="fast"), lambda title: None)
        found[estimator] = {one.verdict.outcome for one in judged if one.place == "linear VAE"}
        assert any(line.startswith("linear VAE: a run with steps of 0.01 / sqrt(n)") for line in left_out)
    assert "fail" not in found[ESTIMATORS["score_function"]] and "fail" in found[uphill]


def uphill(model, x, noise, objective):
    return -20 * pathwise(model, x, noise, objective)


def test_marks_at_one_k_stand_in_the_middle_of_their_panel(own):
    """Those of a black box, whose K is its own: shifted beside each other, they do not fill the panel."""
    k = own.findings.question.objective.samples
    alone = tuple(point for point in own.findings.cost.points if point.samples == k)
    figure = cost(replace(own.findings, cost=replace(own.findings.cost, points=alone)))
    assert figure.axes[0].get_xlim() == pytest.approx((k / 2, 2 * k))
