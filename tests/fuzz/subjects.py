"""Every kind of file that vaebench reads, whole, with a reader of our own for those without a checksum."""

import gzip
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.harness import REFUSALS, Subject
from tests.fuzz.mutations import BYTES, JSON
from tests.test_data_files import TAR, idx, records, tar, write_celeba
from vaebench.data import celeba, cifar100, mnist
from vaebench.experiments import Interrupted, ResultDirectory, grid, run
from vaebench.experiments.building import require_parts
from vaebench.experiments.comparison import claims, commits
from vaebench.experiments.experiment import ComponentSpec, Experiment
from vaebench.experiments.presets import SMOKE
from vaebench.experiments.probes.catalogue import require_probes
from vaebench.experiments.storage import RESULT, STATE
from vaebench.experiments.studies import Study, keep_study, read_study
from vaebench.report.index import write_index

SMALL = replace(SMOKE.base, steps=5, seeds=(0, 1), probes=("gradient", "bounds"))
MNIST = "train-images-idx3-ubyte"
ASV = {
    "version": 2,
    "commit_hash": "0" * 40,
    "params": {"machine": "m"},
    "result_columns": ["result", "params", "version", "stats_ci_99_a", "stats_ci_99_b"],
    "results": {
        "suite.Cost.track_flops": [[1000.0, None], [["'a'", "'b'"]], "1"],
        "suite.Cost.time_step": [[1.5, 2.5], [["1", "2"]], "2", [1.4, 2.4], [1.6, 2.6]],
        "suite.Cost.track_peak_bytes": [[5.0], [], "1"],
    },
}
STATS = {"min": 0.9, "median": 1.0, "q1": 0.95, "q3": 1.05, "rounds": 5}
REPORT = {
    "machine_info": {"python_version": "3.11", "cpu": {"brand_raw": "a processor"}},
    "benchmarks": [
        {"fullname": "a::b", "extra_info": {"claim": "c", "statistic": 0.5, "bound": 1.0}, "stats": STATS},
        {"fullname": "a::c", "extra_info": {"flops": 1000, "device": "cpu"}, "stats": STATS},
    ],
}


def subjects(folder: Path) -> list[Subject]:
    """Write a whole file of every kind.

    Args:
        folder: an empty directory; each kind gets one of its own in it.

    Returns:
        The kinds.
    """
    makers: tuple[Callable[[Path], Subject], ...] = (
        study, experiment, trajectory, snapshot, plain_idx, packed_idx, plain_cifar, packed_cifar, cache, partition,
        photograph, benchmarks, certificate, asv, page,
    )  # fmt: skip
    made = []
    for maker in makers:
        own = folder / maker.__name__ / "results"
        own.mkdir(parents=True)
        made.append(maker(own))
    return made


class Said:
    """JSON that is what `to_dict` says if all of it is in there, as it stands."""

    def __init__(self, plain: Any):
        self.plain = plain

    def __eq__(self, other: object) -> bool:
        return _agrees(other, self.plain)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _agrees(found: Any, said: Any) -> bool:
    if isinstance(found, Mapping) and isinstance(said, str):
        return found == {"name": said}  # a part without options
    if isinstance(found, Mapping):
        return all(key == "hash" or (key in found and _agrees(found[key], value)) for key, value in said.items())
    if isinstance(found, (list, tuple)):
        return len(found) == len(said) and all(map(_agrees, found, said))
    return type(found) is type(said) and found == said


def _read_study(path: Path, results: Path) -> Any:
    found = read_study(path)
    try:
        for arm in found.arms:
            require_parts(arm.experiment)
            require_probes(arm.experiment.probes)
        keep_study(found, results)
    except REFUSALS as refusal:  # as the command line says it
        raise ValueError(f"{path}: {refusal}") from None
    finally:
        for kept in results.glob("*.json"):
            kept.unlink()
    return found.to_dict()


def study(results: Path) -> Subject:
    """A study of two experiments."""
    path = results.parent / "study.json"
    model = ComponentSpec(
        "mlp_vae", {"hidden": [4], "latents": 2, "activations": ComponentSpec("soft_clip", {"sharpness": 2.0})}
    )
    optimizer = ComponentSpec("adam", {"betas": [0.9, 0.99]})
    arms = grid(replace(SMALL, model=model, optimizer=optimizer), B=[8, 16])
    path.write_text(json.dumps(Study("sizes", "default", "Is it so?", "B", arms).to_dict()))
    return Subject("study", path, lambda: _read_study(path, results), _said, JSON, results)


def experiment(results: Path) -> Subject:
    """A single experiment."""
    path = results.parent / "one.json"
    path.write_text(json.dumps(SMALL.to_dict()))

    def read() -> Any:
        (arm,) = _read_study(path, results)["arms"]
        return arm["experiment"]

    return Subject("experiment", path, read, _said, JSON, results)


def _said(content: bytes) -> Any:
    return Said(json.loads(content))


def _ran(one: Experiment, results: Path) -> ResultDirectory:
    run(one, results)
    return ResultDirectory(results, one)


def trajectory(results: Path) -> Subject:
    """The result of an experiment."""
    place = _ran(SMALL, results)

    def read() -> str:
        if (found := place.result()) is None:
            raise FileNotFoundError(f"{place.directory / RESULT} is not there.")
        return repr((found.metadata, found.frame.to_dict("list")))

    return Subject("result", place.directory / RESULT, read, None, BYTES, results)


def snapshot(results: Path) -> Subject:
    """What an interrupted run has so far."""
    one = replace(SMALL, steps=2000)
    try:
        run(one, results, stop=lambda: True)
    except Interrupted:
        place = ResultDirectory(results, one)

    def read() -> str:
        if (found := place.unfinished()) is None:
            raise FileNotFoundError(f"{place.directory / STATE} is not there.")
        taken = found.snapshot
        tensors = [taken.parameters, taken.optimizer, {"": taken.generators}, {"": taken.losses}, {"": taken.grad_sq}]
        lists = [{name: group[name].tolist() for name in sorted(group)} for group in tensors]
        return repr((taken.step, taken.diverged, found.rows, found.seconds, lists))

    return Subject("snapshot", place.directory / STATE, read, None, BYTES, results)


def _images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)


def _says_idx(content: bytes) -> bytes:
    count, rows, columns = (int.from_bytes(content[at : at + 4]) for at in (4, 8, 12))
    assert content[:4] == bytes((0, 0, 8, 3)) and (rows, columns) == (28, 28) and len(content) == 16 + count * 784
    return content[16:]


def plain_idx(results: Path) -> Subject:
    """MNIST's images, unpacked."""
    path = results / MNIST
    path.write_bytes(idx(_images()))
    return Subject("IDX", path, lambda: mnist("train", results).numpy().tobytes(), _says_idx, BYTES, results)


def packed_idx(results: Path) -> Subject:
    """MNIST's images, as they are fetched."""
    path = results / f"{MNIST}.gz"
    path.write_bytes(gzip.compress(idx(_images()), mtime=0))
    return Subject("IDX .gz", path, lambda: mnist("train", results).numpy().tobytes(), None, BYTES, results)


def _photos() -> bytes:
    return records(np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))


def _says_cifar(content: bytes) -> bytes:
    return b"".join(content[at + 2 : at + 3074] for at in range(0, len(content), 3074))


def plain_cifar(results: Path) -> Subject:
    """CIFAR-100's records, unpacked."""
    path = results / "cifar-100-binary" / "train.bin"
    path.parent.mkdir()
    path.write_bytes(_photos())
    return Subject("CIFAR-100", path, lambda: cifar100("train", results).numpy().tobytes(), _says_cifar, BYTES, results)


def packed_cifar(results: Path) -> Subject:
    """CIFAR-100's records, as they are fetched."""
    path = results / TAR
    path.write_bytes(tar({"cifar-100-binary/train.bin": _photos(), "cifar-100-binary/test.bin": _photos()}))
    return Subject(
        "CIFAR-100 .tar.gz", path, lambda: cifar100("train", results).numpy().tobytes(), None, BYTES, results
    )


def cache(results: Path) -> Subject:
    """CelebA, decoded."""
    write_celeba(results, np.random.default_rng(0), "0020")
    celeba("train", results)
    (path,) = results.glob("celeba-train-*.npy")
    return Subject("CelebA's cache", path, lambda: celeba("train", results).numpy().tobytes(), None, BYTES, results)


def _face(photograph: bytes) -> bytes:
    image = Image.open(BytesIO(photograph), formats=("JPEG",)).convert("RGB")
    assert image.size == (178, 218)
    face = image.crop((15, 35, 163, 183)).resize((64, 64), Image.Resampling.BILINEAR)
    return np.asarray(face).transpose(2, 0, 1).tobytes()


def partition(results: Path) -> Subject:
    """CelebA's list of photographs."""
    write_celeba(results, np.random.default_rng(0), "0102")
    faces = {path.name: _face(path.read_bytes()) for path in (results / "img_align_celeba").iterdir()}

    def says(content: bytes) -> bytes:
        lines = [line.split() for line in content.decode().rstrip().splitlines()]
        assert all(len(line) == 2 and line[1] in ("0", "1", "2") for line in lines)
        return b"".join(faces[name] for name, split in lines if split == "0")

    path = results / "list_eval_partition.txt"
    return Subject("CelebA's list", path, lambda: celeba("train", results).numpy().tobytes(), says, BYTES, results)


def photograph(results: Path) -> Subject:
    """One of CelebA's photographs."""
    write_celeba(results, np.random.default_rng(0), "0")

    def read() -> bytes:
        for decoded in results.glob("celeba-train-*"):
            decoded.unlink()
        return celeba("train", results).numpy().tobytes()

    path = results / "img_align_celeba" / "000001.jpg"
    return Subject("CelebA's JPEG", path, read, _face, BYTES, results)


def benchmarks(results: Path) -> Subject:
    """A report of pytest-benchmark."""
    path = results / "report.json"
    path.write_text(json.dumps(REPORT))

    def says(content: bytes) -> str:
        found = {}
        for entry in json.loads(content)["benchmarks"]:
            name, kept, times = entry["fullname"], entry["extra_info"], entry["stats"]
            if "claim" in kept:
                found[name] = [_number(kept[key]) for key in ("statistic", "bound")] + [kept.get("standard_error")]
            else:
                numbers = {key: value for key, value in kept.items() if type(value) in (int, float)}
                found |= {f"{name}: {key}": [float(value)] for key, value in numbers.items()}
            spread = [_number(times[key]) for key in ("median", "min", "q1", "q3")]
            found[f"{name}: time"] = [*spread, int(times["rounds"])]
        return repr(found)

    def read() -> str:
        return repr({name: _numbers(one) for name, one in claims.read(path).quantities.items()})

    return Subject("pytest-benchmark", path, read, says, JSON, results)


def _numbers(one: Any) -> list[Any]:
    if isinstance(one, claims.Claim):
        return [one.value, one.bound, one.error]
    return [one.value, one.least, *one.quartiles, one.rounds] if isinstance(one, claims.Time) else [one.value]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def certificate(results: Path) -> Subject:
    """The certificate.json of an estimator, as `vaebench compare` reads it."""
    path = results / "certificate.json"
    kept = {"place": "linear VAE", "section": "right", "gate": "mean", "statistic": 0.5, "threshold": 8.0}
    verdicts = [
        kept | {"outcome": "pass", "passed": True},
        kept | {"gate": "value", "statistic": None, "outcome": "fail", "passed": False, "evidence": {"points": 3}},
    ]
    about = {"processor": "a processor", "commit": "abc"}
    path.write_text(json.dumps({"schema": 1, "name": "mine", "outcome": "fail", "verdicts": verdicts, "about": about}))

    def says(content: bytes) -> str:
        document, found = json.loads(content), {}
        for one in document["verdicts"]:
            value = math.inf if one["statistic"] is None and one["outcome"] == "fail" else _number(one["statistic"])
            found[f"{document['name']}: {one['place']}: {one['gate']}"] = [value, _number(one["threshold"]), None]
        return repr(found)

    def read() -> str:
        return repr({name: _numbers(one) for name, one in claims.read(path).quantities.items()})

    return Subject("certificate.json", path, read, says, JSON, results)


def asv(results: Path) -> Subject:
    """A file of asv's results."""
    path = results / "asv.json"
    path.write_text(json.dumps(ASV))

    def says(content: bytes) -> str:
        document, found = json.loads(content), {}
        for name, row in document["results"].items():
            fields = dict(zip(document["result_columns"], row, strict=False))
            for place, case in enumerate(product(*fields["params"])):
                value, low, high = (
                    None if fields.get(key) is None or fields[key][place] is None else float(fields[key][place])
                    for key in ("result", "stats_ci_99_a", "stats_ci_99_b")
                )
                ends = None if low is None or high is None else (low, high)
                found[f"{name}({', '.join(case)})" if case else name] = (value, fields.get("version"), ends)
        return repr(found)

    def read() -> str:
        found = commits.read(path)
        return repr({name: (one.value, one.version, one.interval) for name, one in found.items()})

    return Subject("asv", path, read, says, JSON, results)


def page(results: Path) -> Subject:
    """The report.json of a page that was written: the index says of a damaged one that it is."""
    path = results / "one" / "report.json"
    path.parent.mkdir()
    texts = {"name": "one", "scale": "default", "question": "Is it so?", "verdict": "all passed", "state": "good"}
    numbers = {"format": 1, "checks": 1, "failed": 0, "arms": 1, "runs": 2, "diverged": 0}
    path.write_text(json.dumps(texts | numbers | {"answers": [{"about": "a", "text": "b"}], "commits": ["abc"]}))

    def read() -> str:
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there.")
        text = write_index(results).read_text("utf-8")
        if "is no report of this vaebench" in text:
            raise ValueError("report.json is no report.")
        return text

    def says(content: bytes) -> Any:
        return Shown(json.loads(content))

    return Subject("report.json", path, read, says, JSON, results)


class Shown:
    """A page that has the texts of a report.json, escaped."""

    def __init__(self, plain: Any):
        self.plain = plain

    def __eq__(self, other: object) -> bool:
        from markupsafe import escape

        return isinstance(other, str) and all(str(escape(self.plain[key])) in other for key in ("question", "verdict"))

    __hash__ = None  # pyright: ignore[reportAssignmentType]
