"""Experiments as data: the same as JSON, named by a hash, varied by a grid, and refused in one sentence."""

import json
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaebench.experiments import ComponentSpec, Experiment, Measures, grid
from vaebench.experiments.building import build
from vaebench.experiments.presets import PRESETS, SCALES, SMOKE, preset
from vaebench.experiments.studies import Study, read_study
from vaebench.gradients.objectives import Objective
from vaebench.models import MeanFieldModel

BASE = SMOKE.base


def through_json(experiment: Experiment) -> Experiment:
    return Experiment.from_dict(json.loads(json.dumps(experiment.to_dict())))


@given(
    samples=st.integers(1, 100),
    alpha=st.floats(0, 1),
    beta=st.floats(0, 10),
    seeds=st.lists(st.integers(0, 2**31 - 1), min_size=1, unique=True),
    sharpness=st.floats(0.1, 10),
)
def test_an_experiment_survives_json(samples, alpha, beta, seeds, sharpness):
    model = ComponentSpec(
        "mlp_vae", {"hidden": [3], "activations": ComponentSpec("soft_clip", {"sharpness": sharpness})}
    )
    one = replace(BASE, objective=Objective(samples, alpha, beta), seeds=tuple(seeds), model=model)
    assert through_json(one) == one
    assert through_json(one).hash == one.hash


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json_and_differ_in_every_arm(name, scale):
    study = preset(name, scale)
    assert Study.from_dict(json.loads(json.dumps(study.to_dict()))) == study
    assert len({arm.experiment.hash for arm in study.arms}) == len(study.arms) > 1
    assert study.question.endswith("?")


def test_the_papers_studies_have_the_papers_size():
    cifar, celeba = (preset("activations", scale).arms[1].experiment for scale in ("paper", "paper-celeba"))
    assert (cifar.data.name, cifar.steps, cifar.schedule.period) == ("cifar100", 19_600, 196)  # 50,000 / 256
    assert (celeba.data.name, celeba.steps, celeba.schedule.period) == ("celeba", 63_600, 636)  # 162,770 / 256, up
    assert cifar.model.options["size"] == 32 and celeba.model.options["size"] == 64
    for one in (cifar, celeba):
        assert (one.batch_size, len(one.seeds), one.model.options["latents"]) == (256, 5, 100)
        assert one.optimizer.name == "adam" and one.schedule(1) == 1e-3
        assert one.schedule(one.steps) == pytest.approx(1e-4)  # epoch 100
    labels = [arm.label for arm in preset("samples", "paper-celeba").arms]
    assert labels == ["K=1", "K=5", "K=10"]
    assert [arm.label for arm in preset("samples", "paper").arms] == [*labels, "K=50", "K=100"]


@pytest.mark.parametrize(
    ("name", "scale", "compiled"),
    [
        ("samples", "smoke", [False] * 2),
        ("samples", "default", [False, False, False, True, True]),
        ("samples", "paper", [True] * 5),
        ("activations", "default", [False] * 5),
        ("activations", "paper-celeba", [True] * 5),
    ],
)
def test_steps_are_compiled_where_they_save_more_than_compilation_takes(name, scale, compiled):
    """Of the default studies that is K = 50 and 100; the paper's have 19,600 steps and more."""
    assert [arm.experiment.compiled for arm in preset(name, scale).arms] == compiled


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("scale", ["paper", "paper-celeba"])
def test_the_theorems_steps_are_all_that_a_theorem_scale_changes(name, scale):
    for ours, theirs in zip(preset(name, f"{scale}-theorem").arms, preset(name, scale).arms, strict=True):
        assert ours.experiment.schedule.is_inverse_sqrt
        assert replace(ours.experiment, schedule=theirs.experiment.schedule) == theirs.experiment


CHANGES = [
    {"data": ComponentSpec("patches")},
    {"model": ComponentSpec("linear_vae")},
    {"objective": Objective(7)},
    {"estimator": "analytic_kl"},
    {"optimizer": ComponentSpec("adam", {"eps": 1e-6})},
    {"schedule": replace(BASE.schedule, period=2)},
    {"steps": BASE.steps + 1},
    {"batch_size": BASE.batch_size + 1},
    {"seeds": (5,)},
    {"probes": ("bounds",)},
    {"measures": replace(BASE.measures, rows=3)},
    {"dtype": "float32"},
    {"device": "cuda"},
    {"compiled": True},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_setting_moves_the_hash(change):
    assert replace(BASE, **change).hash != BASE.hash


def test_no_field_of_an_experiment_is_left_out_of_that():
    assert [name for change in CHANGES for name in change] == [one.name for one in fields(Experiment)]


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_whether_steps_are_compiled_is_true_or_false(value):
    with pytest.raises(ValueError, match="compiled must be true or false, got"):
        replace(BASE, compiled=value)


def test_the_hash_is_that_of_other_machines():
    """It names results that other people have: a change of it is a change of format."""
    assert Experiment(
        ComponentSpec("digits"),
        ComponentSpec("linear_vae"),
        Objective(),
        "exact",
        ComponentSpec("sgd"),
        BASE.schedule,
        1,
        1,
    ).hash == ("8871a03731ca")


def test_a_grid_varies_what_it_is_told():
    arms = grid(BASE, K=[1, 5], beta=[0.5, 2.0])
    assert [arm.label for arm in arms] == ["K=1, beta=0.5", "K=1, beta=2.0", "K=5, beta=0.5", "K=5, beta=2.0"]
    assert [arm.experiment.objective for arm in arms] == [Objective(k, 1.0, b) for k in (1, 5) for b in (0.5, 2.0)]


def test_a_grid_reaches_into_parts():
    arms = grid(BASE, activations=[ComponentSpec("tanh"), ComponentSpec("soft_clip", {"sharpness": 2.0})], C=[0.5])
    assert [arm.label for arm in arms] == ["tanh, C=0.5", "soft_clip sharpness=2.0, C=0.5"]
    assert arms[1].experiment.model.options["activations"].options == {"sharpness": 2.0}
    assert arms[1].experiment.model.options["hidden"] == BASE.model.options["hidden"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"seeds": []}, "seeds must be distinct"),
        ({"seeds": [1, 1]}, "seeds must be distinct"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"colour": 1}, "has no field 'colour'"),
        ({"objective": {"K": 3}}, "Objective takes samples, alpha, beta"),
        ({"objective": {"samples": 0}}, "samples must be an integer"),
        ({"model": 3}, "A part must be a name"),
        ({"measures": {"rows": 0}}, "rows must be an integer"),
    ],
)
def test_what_makes_no_experiment_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Experiment.from_dict(BASE.to_dict() | change)


def test_a_missing_field_is_named():
    plain = BASE.to_dict()
    del plain["data"]
    with pytest.raises(ValueError, match="'data'"):
        Experiment.from_dict(plain)


def test_a_grid_refuses_what_is_no_setting():
    with pytest.raises(ValueError, match="no setting 'colour'"):
        grid(BASE, colour=[1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": ComponentSpec("mlp_vae", {"depth": 2})}, "mlp_vae takes no option 'depth'"),
        (
            {"model": ComponentSpec("mlp_vae", {"activations": ComponentSpec("sine")})},
            "no activations 'sine'; known: relu, tanh",
        ),
        ({"data": ComponentSpec("digits", {"colour": 1})}, "digits takes no option 'colour'"),
        ({"optimizer": ComponentSpec("adam", {"momentum": 1})}, "adam takes no option 'momentum'"),
        ({"device": "cuda:99"}, "not there"),
    ],
)
def test_what_cannot_be_built_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(replace(BASE, **change))


@pytest.mark.parametrize("name", ["data", "model", "estimator", "optimizer"])
def test_unknown_parts_are_named(name):
    other = "nothing" if name == "estimator" else ComponentSpec("nothing")
    with pytest.raises(LookupError, match="nothing"):
        build(replace(BASE, **{name: other}))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_at_the_smoke_scale(name):
    for arm in preset(name, "smoke").arms:
        problem = build(arm.experiment)
        assert len(problem.models) == len(arm.experiment.seeds)
        assert all(p.dtype == torch.float64 for p in problem.models[0].parameters())


def test_each_seed_has_a_start_of_its_own():
    first, second, _ = (next(model.parameters()) for model in build(BASE).models)
    assert not torch.equal(first, second)


def test_training_and_test_data_differ():
    problem = build(BASE)
    assert problem.test is not None
    assert (len(problem.train), len(problem.test)) == (1500, 297)


def test_black_box_inference_has_one_example_and_no_test_set():
    problem = build(preset("bbvi", "smoke").arms[0].experiment)
    assert isinstance(problem.models[0], MeanFieldModel)
    assert problem.train.shape == (1, 442)
    assert problem.test is None


def test_unknown_scales_are_refused():
    with pytest.raises(ValueError, match=r"scale must be one of smoke, default, paper, .*, got 'huge'"):
        preset("beta", "huge")


def test_a_file_holds_a_study_or_an_experiment(tmp_path):
    study, single = tmp_path / "a.json", tmp_path / "one.json"
    study.write_text(json.dumps(preset("beta", "smoke").to_dict()))
    single.write_text(json.dumps(BASE.to_dict()))
    assert read_study(study) == preset("beta", "smoke")
    assert [arm.experiment for arm in read_study(single).arms] == [BASE]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold an experiment or a study"),
        ('{"arms": [{}]}', "is missing or of the wrong kind"),
        ('{"arms": [], "name": "a", "scale": "b", "question": "c", "axis": "d"}', "needs experiments"),
    ],
)
def test_other_files_are_refused(tmp_path, text, sentence):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_study(path)


def test_measures_are_positive():
    with pytest.raises(ValueError, match="replicates must be an integer"):
        Measures(replicates=0)
