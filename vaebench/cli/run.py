"""`vaebench run` and `vaebench resume`: experiments to their ends, on this machine or on a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaebench.cli.common import AsJson, Results, refusing, say, shell
from vaebench.cli.outcome import tell
from vaebench.cli.progress import bar, stopping

if TYPE_CHECKING:
    from vaebench.experiments import Experiment
    from vaebench.experiments.scheduling.cluster import Cluster
    from vaebench.experiments.scheduling.engine import Outcome
    from vaebench.experiments.studies import Study

Jobs = Annotated[int | None, typer.Option(min=1, help="Experiments at a time; default one per core.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler that runs them instead.")]
TlsCa = Annotated[Path | None, typer.Option(help="Certificate authority of a tls:// scheduler, a PEM file.")]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate for a tls:// scheduler, a PEM file.")]
TlsKey = Annotated[Path | None, typer.Option(help="Key of that certificate, a PEM file.")]
Data = Annotated[Path | None, typer.Option(help="Where the files of mnist, cifar100 and celeba are.")]


def run(
    what: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset, or a JSON file of a study.")],
    scale: Annotated[str, typer.Option(help="smoke, default (minutes), paper or paper-celeba (a GPU).")] = "default",
    results: Results = Path("results"),
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    data: Data = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default the preset's.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each experiment; default the preset's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study: what is complete is kept, what was interrupted goes on.

    Exits with 1 if an experiment broke, a seed diverged or a check failed; with 2 if the study cannot be run.

    Examples:
        vaebench run activations --scale smoke

        vaebench run samples --jobs 2 && vaebench report samples

        vaebench run mine.json --device cuda --data ~/datasets

        vaebench run beta --scheduler tcp://10.0.0.1:8786
    """
    with refusing("run"):
        cluster = _cluster(scheduler, (tls_ca, tls_cert, tls_key))
        study = _study(what, scale, {"device": device, "seeds": None if seeds is None else tuple(range(seeds))})
    _run_studies("run", [study], results, jobs, cluster, data, as_json)


def resume(
    names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="Default all unfinished.")] = None,
    results: Results = Path("results"),
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Go on with studies that were interrupted.

    Exits like `run`. Examples:

        vaebench resume

        vaebench resume activations --jobs 1
    """
    with refusing("resume"):
        from vaebench.experiments import ResultDirectory
        from vaebench.experiments.studies import find_studies

        cluster = _cluster(scheduler, (tls_ca, tls_cert, tls_key))
        found = find_studies(results, names or None)
        studies = [
            study
            for study in found.studies
            if names or any(not ResultDirectory(results, arm.experiment).complete() for arm in study.arms)
        ]
    for name, why in found.broken.items():
        say("resume", f"passed over {name}: {why}")
    if not studies:
        say("resume", f"Nothing in {results} is unfinished.")
        return
    _run_studies("resume", studies, results, jobs, cluster, data, as_json)


def _cluster(scheduler: str | None, certificates: tuple[Path | None, Path | None, Path | None]) -> Cluster | None:
    from vaebench.experiments.scheduling.cluster import Cluster

    if scheduler is None:
        if any(certificates):
            raise ValueError("Certificates are for a --scheduler tls://..., which is not given.")
        return None
    return Cluster(scheduler, *(None if path is None else str(path) for path in certificates))


def _study(what: str, scale: str, settings: dict[str, Any]) -> Study:
    from vaebench.experiments.presets import preset
    from vaebench.experiments.studies import read_study

    path = Path(what)
    study = read_study(path) if path.suffix == ".json" or path.is_file() or os.sep in what else preset(what, scale)
    return study.with_settings(**{name: value for name, value in settings.items() if value is not None})


def _run_studies(
    command: str,
    studies: Sequence[Study],
    results: Path,
    jobs: int | None,
    cluster: Cluster | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Run, say what came out, exit."""
    from vaebench.experiments.scheduling.cluster import SchedulerLostError
    from vaebench.experiments.studies import keep_study

    arms = {arm.experiment.hash: arm.experiment for study in studies for arm in study.arms}
    found = {} if data is None else {"directory": str(data)}
    outcomes: dict[str, Outcome] = {}
    try:
        with refusing(command, ValueError, LookupError, ImportError):
            _require(arms.values(), cluster)
            for study in studies:
                keep_study(study, results)
            _say_who_is_there(command, arms.values(), results)
            for outcome in outcomes_of(list(arms.values()), results, jobs, cluster, found):
                outcomes[outcome.experiment.hash] = outcome
    except OSError as error:
        why = error.strerror or error
        say(command, f"{results} cannot be written ({why}); what was there is there still.")
        sys.exit(1)
    except SchedulerLostError as lost:
        names = [study.title for study in studies]
        say(command, f"{lost} To go on: {shell('vaebench', 'resume', *names, '--results', results)}")
        sys.exit(1)
    sys.exit(tell(command, studies, outcomes, results, as_json))


def _require(experiments: Iterable[Experiment], cluster: Cluster | None) -> None:
    """Refuse what cannot be asked before anything is written."""
    from vaebench.experiments.building import require_parts
    from vaebench.experiments.probes.catalogue import require_probes
    from vaebench.support.checks import computing_device

    for experiment in experiments:
        require_parts(experiment)
        require_probes(experiment.probes)
        if cluster is None:
            computing_device(experiment.device)


def _say_who_is_there(command: str, experiments: Iterable[Experiment], results: Path) -> None:
    """Say at once if another process is at some of them; these are reported as broken, the others are run."""
    from vaebench.experiments import BusyError, ResultDirectory

    for experiment in experiments:
        try:
            ResultDirectory(results, experiment).require_free()
        except BusyError as busy:
            say(command, str(busy))


def outcomes_of(
    experiments: list[Experiment], results: Path, jobs: int | None, cluster: Cluster | None, found: dict[str, Any]
) -> Iterator[Outcome]:
    """Run experiments behind a bar, stopping when asked to.

    Args:
        experiments: distinct.
        results: where they go.
        jobs: processes at a time; default one per core.
        cluster: that runs them instead, or None.
        found: how data sets in files are found.

    Yields:
        The outcomes of those that ended.
    """
    from vaebench.experiments.scheduling.cluster import run_on_cluster
    from vaebench.experiments.scheduling.engine import run_all

    asked: list[int] = []
    total = sum(experiment.steps for experiment in experiments)
    with stopping(asked), bar(total, len(experiments)) as progress:

        def stop() -> bool:
            return bool(asked)

        if cluster is None:
            most = min((os.cpu_count() or 1) if jobs is None else jobs, len(experiments))
            yield from run_all(experiments, results, most, progress, stop, found=found)
        else:
            yield from run_on_cluster(experiments, results, cluster, progress, stop, found=found)
