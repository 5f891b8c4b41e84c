"""Other libraries beside this one: the checks convict what is planted, acquit what is right, and resume."""

import importlib
import pkgutil
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks
from benchmarks.peers import beds, cost, efficiency, report, tables, targets, truth
from benchmarks.peers.cases import K, cases, simple
from benchmarks.peers.contract import contract
from benchmarks.peers.steps import OURS, PLAIN, Contestant, plain, plain_step, replicate, with_torchs_layers
from tests.cases import NEEDS_COMPILER
from vaebench.gates.means import exact_at
from vaebench.gates.reference import exact_reference
from vaebench.gradients.estimators import draw_noise, pathwise
from vaebench.gradients.loss import Loss, own_parameters
from vaebench.gradients.objectives import Objective

NEEDS_PEERS = "needs the libraries of benchmarks/peers/requirements.txt"
REPRODUCERS = sorted((Path(__file__).parents[1] / "reports/peers/reproducers").glob("*.py"))
IWAE = Objective(K, 0.0)


def bed(name="linear"):
    return beds.BEDS[name](torch.Generator().manual_seed(0))


def few(name="linear"):
    model, x = bed(name)
    return model, x[:3]


def by_check(verdicts):
    return {f"{verdict.gate} {verdict.claim}": verdict.passed for verdict in verdicts}


def test_asv_does_not_see_the_peers():
    assert "peers" not in {module.name for module in pkgutil.iter_modules(benchmarks.__path__)}


@pytest.mark.parametrize("name", beds.BEDS)
@pytest.mark.parametrize("objective", [Objective(3), Objective(3, 0.0)])
def test_plain_is_pathwise(name, objective):
    model, x = bed(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        value = plain(model, objective)(x)
        found = [p.grad.clone() for p in model.parameters()]
        torch.manual_seed(1)
        loss = Loss(model, pathwise, objective)(x, draw_noise(model, x, objective))
    assert value == pytest.approx(float(loss.detach()), abs=1e-12)
    for mine, theirs in zip(torch.autograd.grad(loss, list(model.parameters())), found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("scalar_code")
@pytest.mark.parametrize("step", [plain_step, pytest.param(OURS.step, marks=NEEDS_COMPILER)])
def test_steps_move_every_parameter(step):
    model, x = bed()
    before = [p.detach().clone() for p in model.parameters()]
    with torch.random.fork_rng(devices=[]):
        step(model, IWAE, 0.1)(x)
    assert all((p != old).all() for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("net", ["conv32", "conv32_soft_clip"])
def test_torchs_layers_are_the_same_functions(net):
    (ours, x), (theirs, _) = cost.problem(net, 2), cost.problem(net, 2)
    theirs = with_torchs_layers(theirs)
    assert not any(type(layer).__module__.startswith("vaebench.conv") for layer in theirs.modules())
    z = torch.linspace(-1, 1, 2 * ours.latents).view(1, 2, -1)
    for mine, other in (
        (ours.posterior(x).mean, theirs.posterior(x).mean),
        (ours.likelihood(z).logits, theirs.likelihood(z).logits),
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_bound_is_that_of_the_gates():
    model, x = few("mlp")
    reference = exact_reference(model, IWAE, x)
    assert reference is not None
    values, gradients = exact_at(reference, [own_parameters(reference.loss)])
    found = targets.bound(K, 0.0)(model, x)
    assert found.value.value == pytest.approx(values[0], abs=1e-6)
    torch.testing.assert_close(found.gradient, gradients[0], rtol=0, atol=1e-6 * float(gradients[0].abs().max()))


def test_bounds_are_resolved_beyond_what_the_tests_see():
    model, x = few()
    rough, fine = (targets.bound(K, 0.0, points=p, outer=2 * p)(model, x) for p in (301, 601))
    assert rough.value.value == pytest.approx(fine.value.value, abs=1e-12)
    torch.testing.assert_close(rough.gradient, fine.gradient, rtol=0, atol=1e-12)


def test_weighted_mean_lies_above_the_bound():
    model, x = bed()
    below, above = targets.bound(K, 0.0)(model, x).value, targets.weighted_mean(K)(model, x).value
    assert below.value - above.value > 50 * above.error  # losses: minus the values


def test_combinations():
    model, x = few()
    elbo, iwae = targets.bound()(model, x), targets.bound(K, 0.0)(model, x)
    half = targets.mixture((0.5, targets.bound()), (0.5, targets.bound(K, 0.0)))(model, x)
    assert half.value.value == pytest.approx((elbo.value.value + iwae.value.value) / 2)
    torch.testing.assert_close(half.gradient, (elbo.gradient + iwae.gradient) / 2)
    both = targets.blocks(targets.bound(), targets.bound(K, 0.0))(model, x)
    split = sum(p.numel() for p in model.encoder.parameters())
    assert torch.equal(both.gradient, torch.cat([elbo.gradient[:split], iwae.gradient[split:]]))
    assert not targets.without_encoder(targets.bound())(model, x).gradient[:split].any()
    assert targets.without_constant(targets.bound())(model, x).value.value == pytest.approx(
        elbo.value.value - 3 * np.log(2 * np.pi)
    )


def test_correct_code_is_acquitted():
    verdicts = truth.examine(simple("plain", plain, IWAE), "linear", 520, 100)
    assert [v.gate for v in verdicts] == ["value", "gradient", "variance in B", "variance in K"]
    assert all(v.passed for v in verdicts), [str(v) for v in verdicts]


def faulty(model, objective):
    """The gradient a tenth too small, the noise of all rows the same, the weighted mean reported."""

    def backward(x):
        q = model.posterior(x)
        z = q.transport(torch.randn(objective.samples, 1, model.latents, dtype=x.dtype).expand(-1, len(x), -1))
        log_w = objective.log_weights(model, x, z, q)
        w = torch.softmax(log_w, 0).detach()
        value = -(w * log_w).sum(0).mean()
        (0.9 * value).backward()
        return float(value.detach())

    return backward


def test_planted_faults_are_convicted_and_recognised():
    case = simple("faulty", faulty, IWAE, found=("the weighted mean", targets.weighted_mean(K)))
    found = by_check(truth.examine(case, "linear", 520, 100))
    assert not found["value as promised"] and not found["gradient as promised"]
    assert not found["variance in B the variance falls as 1/B"]
    assert found["value as found"]


def test_a_constant_gradient_has_no_law():
    constant = torch.ones(10, 3)
    assert not truth.slope(constant, constant, 4, "K", 0.45).passed


def test_truth_resumes(tmp_path, monkeypatch):
    path, lines = tmp_path / "truth.csv", []
    case = simple("plain", plain, Objective())
    failed = truth.judge("value", "as promised", 9.0, 4.0, 1e-5, {"replicates": 7})
    walked = truth.judge("descent", "", 1.0, 4.0, 1e-5, {"replicates": 7})
    kept = truth.judge("contract", "", 0.0, 0.5, 0.0, {"replicates": 4})
    monkeypatch.setattr(truth, "examine", lambda case, bed: [failed])
    monkeypatch.setattr(truth, "descent", lambda *_: walked)
    monkeypatch.setattr(truth, "contract", lambda *_: kept)
    monkeypatch.setattr(truth, "cases", lambda: iter([("1", case)]))
    truth.run(path, lines.append)
    first = path.read_text()
    truth.run(path, lines.append)
    assert path.read_text() == first
    assert [line.rpartition(": ")[2] for line in lines] == [
        *("FAIL value as promised", "pass", "pass", "FAIL value as promised", "pass", "known", "known")
    ]
    monkeypatch.setattr(truth, "cases", lambda: iter([("2", case)]))
    truth.run(path, lines.append)
    assert len(tables.read(path)) == 5 and set(tables.read(path)["version"]) == {"2"}
    assert list(tmp_path.iterdir()) == [path]


def test_failures_name_what_they_are():
    for _, case in cases():
        assert (case.found is None) == (case.reproducer == "")
        assert not case.reproducer or case.reproducer in {path.name for path in REPRODUCERS}


def test_the_grid_is_complete(monkeypatch):
    monkeypatch.setattr(cost, "installed", dict)
    cells = len(cost.NETS) * len(cost.BATCHES) + sum(map(len, cost.SMALLEST.values()))
    assert len(list(cost.points(quick=False))) == cells * len(cost.SAMPLES)
    assert {(p.net, p.B, p.K) for p in cost.points(quick=True)} == cost.QUICK


@NEEDS_COMPILER
@pytest.mark.usefixtures("scalar_code")
def test_a_point_is_measured():
    row = cost.measure(cost.Point("small", 32, 5, PLAIN.name), seconds=0.02)
    assert float(row["ratio_low"]) <= float(row["ratio"]) <= float(row["ratio_high"])
    assert row["bound"] == "IWAE" and row["rounds"] >= cost.ROUNDS[0]


def test_costs_resume(tmp_path, monkeypatch):
    path, measured = tmp_path / "cost.csv", []

    def measure(point):
        measured.append(point)
        return cost.settings(point, "1") | {"peer_s": "1", "ratio": "2"}

    monkeypatch.setattr(cost, "one_core", lambda: None)
    monkeypatch.setattr(cost, "contestants", lambda: {"peer": (Contestant("peer", plain_step), "1")})
    monkeypatch.setattr(cost, "measure", measure)
    cost.run(path, True, lambda line: None)
    cost.run(path, True, lambda line: None)
    assert len(measured) == len(cost.QUICK) == len(tables.read(path))


def test_the_page_says_what_failed(tmp_path):
    case = replace(simple("theirs", plain, IWAE), found=("something else", targets.bound()), reproducer="theirs.py")
    failed = truth.judge("value", "as promised", 9.0, 4.0, 1e-5, {"replicates": 7, "loss": 1.5})
    tables.replace(tmp_path / "truth.csv", [truth.row(case, "1.0", "linear", failed)], {"peer": "theirs"})
    point = cost.Point("small", 32, 5, "theirs")
    numbers = {"bound": "IWAE", "ours_s": 0.001, "peer_s": 0.002, "ratio": 2, "ratio_low": 1.9, "ratio_high": 2.2}
    row = cost.settings(point, "1.0") | numbers | {"rounds": 9, "cpu": "One (R), 2 cores"}
    for one in (row, row | {"cpu": "Other", "ratio": 1.5, "ratio_low": 1.4}):
        tables.replace(tmp_path / "cost.csv", [one], {"cpu": one["cpu"]})
    report.write(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| theirs 1.0 | IWAE (K=5) | **9** FAIL |" in page
    assert "**theirs**, IWAE (K=5) (value): something else. [`theirs.py`](reproducers/theirs.py)" in page
    assert "0 of 1 estimators of other libraries are; not: theirs." in page
    assert (
        "One (R), 2 cores: the fastest peer on torch takes 2.00 times our step in geometric mean, 2.00 at least" in page
    )
    assert page.index("### One (R), 2 cores") < page.index("| all | 1 | 2.000 | 2.000 |") < page.index("### Other")
    assert "| all | 1 | 1.500 | 1.500 |" in page
    assert len(page.splitlines()) < 90 and "rounds" not in page.split("## Is it")[0]
    for name, ratio in (("cost-one-r-2-cores.svg", ">2</text>"), ("cost-other.svg", ">1.5</text>")):
        drawn = (tmp_path / name).read_text()
        assert drawn.lstrip().startswith("<?xml") and ratio in drawn and f"({name})" in page


@NEEDS_COMPILER
@pytest.mark.usefixtures("scalar_code")
def test_time_times_variance(tmp_path, monkeypatch):
    path = tmp_path / "efficiency.csv"
    monkeypatch.setattr(efficiency, "NET", "small")
    monkeypatch.setattr(efficiency, "STEPS", 3)
    monkeypatch.setattr(efficiency, "one_core", lambda: None)
    efficiency.run(path, lambda line: None, seconds=0.0, replicates=32)
    table = tables.read(path)
    assert table["estimator"].tolist() == ["pathwise", "doubly_reparameterized"] * 2
    assert table["steps"].tolist() == ["0", "0", "3", "3"]
    product = table["seconds"].astype(float) * table["variance"].astype(float)
    np.testing.assert_allclose(product, table["product"].astype(float), rtol=2e-3)
    lines = []
    efficiency.run(path, lines.append, seconds=0.0, replicates=32)
    assert lines == ["time x variance: known"]


def test_training_convicts_a_shrunk_gradient_and_acquits_the_right_one(monkeypatch):
    monkeypatch.setattr(truth, "STEPS", 12)

    def shrunk(model, objective):
        backward = plain(model, objective)

        def step(x):
            value = backward(x)
            for parameter in model.parameters():
                parameter.grad *= 0.9
            return value

        return step

    verdicts = [truth.descent(simple("theirs", adapter, Objective(K)), *few(), 0) for adapter in (plain, shrunk)]
    assert [verdict.passed for verdict in verdicts] == [True, False], [str(verdict) for verdict in verdicts]


def reseeded(backward, model):
    torch.manual_seed(3)


def unrepeatable(backward, model):
    model.calls = getattr(model, "calls", 0) + 1
    torch.randn(model.calls)


def scaled_parameters(backward, model):
    with torch.no_grad():
        next(model.parameters()).mul_(2)


def more_threads(backward, model):
    torch.set_num_threads(torch.get_num_threads() + 1)


@pytest.mark.parametrize(
    ("spoil", "broken"),
    [
        (None, set()),
        (reseeded, {"no fresh noise"}),
        (unrepeatable, {"unequal at equal seeds"}),
        (scaled_parameters, {"inputs changed", "unequal at equal seeds"}),
        (more_threads, {"settings of torch changed"}),
    ],
)
def test_the_contract_names_the_clause_that_is_broken(spoil, broken):
    def adapter(model, objective):
        backward = plain(model, objective)

        def spoilt(x):
            if spoil:
                spoil(backward, model)
            return backward(x)

        return spoilt

    threads = torch.get_num_threads()
    verdict = contract(simple("theirs", adapter, IWAE), *few(), 0)
    torch.set_num_threads(threads)
    assert set(verdict.evidence) - {"replicates"} == broken
    assert verdict.statistic == len(broken) and verdict.passed == (not broken)


def test_the_contract_misses_no_parameter():
    def adapter(model, objective):
        backward = plain(model, objective)

        def frozen(x):
            value = backward(x)
            list(model.parameters())[1].grad = None
            return value

        return frozen

    verdict = contract(simple("theirs", adapter, IWAE), *few(), 0)
    assert verdict.evidence["parameters without a finite gradient"] == 1 and not verdict.passed


LIBRARY_CASES = [
    ("pyro", "Trace_ELBO", Objective(K), True),
    ("pyro", "TraceMeanField_ELBO", Objective(K), True),
    ("pyro", "RenyiELBO", IWAE, True),
    ("pyro", "RenyiELBO, half of the data", IWAE, False),
    ("pythae", "VAE", Objective(), True),
    ("pythae", "IWAE", IWAE, False),
    ("numpyro", "RenyiELBO", IWAE, True),
]


@pytest.mark.parametrize(("library", "name", "objective", "right"), LIBRARY_CASES)
def test_libraries(library, name, objective, right):
    pytest.importorskip(library, reason=NEEDS_PEERS)
    module = importlib.import_module(f"benchmarks.peers.with_{library}")
    promised = targets.bound(objective.samples, objective.alpha)
    promised = targets.without_constant(promised) if library == "pythae" else promised
    model, x = bed()
    values, _ = replicate(module.ADAPTERS[name](model, objective), model, x, 300, seed=0)
    assert truth.value(values, promised(model, x), "").passed is right
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("net", ["small", "conv32_soft_clip"])
def test_nets_are_the_same_in_jax(net):
    pytest.importorskip("numpyro", reason=NEEDS_PEERS)
    from benchmarks.peers import with_numpyro

    model, x = cost.problem(net, 2)
    programs = with_numpyro.programs(model)
    encoder, decoder = with_numpyro.net(model.encoder, "encoder"), with_numpyro.net(model.decoder, "decoder")
    z = torch.linspace(-1, 1, 3 * model.latents).view(3, model.latents)
    for theirs, ours in (
        (encoder(programs[2], with_numpyro.to_jax(x)), model.encoder(x)),
        (decoder(programs[2], with_numpyro.to_jax(z)), model.decoder(z)),
    ):
        np.testing.assert_allclose(np.asarray(theirs), ours.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("script", REPRODUCERS, ids=lambda path: path.stem)
def test_reproducers_still_reproduce(script):
    pytest.importorskip(script.stem.split("_")[0], reason=NEEDS_PEERS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        runpy.run_path(str(script))
