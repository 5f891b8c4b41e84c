"""Many experiments on a cluster, by dask.distributed (`pip install 'vaebench[cluster]'`).

The scheduler reruns the experiments of a worker that is lost. Where workers share the file system of the results,
a rerun goes on from the snapshot; where they do not, it starts again, and the result travels back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import EVERY, Progress, run
from vaebench.experiments.scheduling.engine import Outcome
from vaebench.experiments.storage import RESULT, BusyError, ResultDirectory
from vaebench.support.files import write_whole

TOPIC = "vaebench"
RETRIES = 2
PATIENCE = "10s"  # with a scheduler that does not answer
BUSY_FOR = 30.0  # seconds that a rerun waits for the process it replaces to let go


def run_on_cluster(
    experiments: Sequence[Experiment],
    root: Path,
    scheduler: str,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
    every: float = EVERY,
    found: Mapping[str, Any] | None = None,
) -> Iterator[Outcome]:
    """Hand experiments to a scheduler, and take their results as they come.

    Args:
        experiments: distinct.
        root: of the results, here and on the workers.
        scheduler: address, such as "tcp://10.0.0.1:8786".
        progress: told the steps of each.
        stop: asked as results come in; what has not begun is cancelled then.
        every: seconds between snapshots.
        found: how data sets in files are found on the workers.

    Yields:
        Outcomes, in the order in which they end.

    Raises:
        ValueError: if distributed is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ValueError("--scheduler needs dask.distributed: pip install 'vaebench[cluster]'.") from None
    try:
        client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"No scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler`.") from None
    with client:
        client.subscribe_topic(TOPIC, lambda event: progress(Progress(*event[1])))
        futures = {
            client.submit(
                _remote, one.to_dict(), str(root), every, dict(found or {}), key=f"vaebench-{one.hash}", retries=RETRIES
            ): one
            for one in experiments
        }
        for future in as_completed(futures, loop=client.loop):
            yield _outcome(future, futures[future], root)
            if stop():
                client.cancel(list(futures))
                return


def _outcome(future: Any, experiment: Experiment, root: Path) -> Outcome:
    if future.status != "finished":
        return Outcome(experiment, failed=str(future.exception()) if future.status == "error" else future.status)
    path = ResultDirectory(root, experiment).directory / RESULT
    if not path.exists():  # the worker has a file system of its own
        write_whole(path, future.result().encode())
    return Outcome(experiment)


def _remote(plain: Mapping[str, Any], root: str, every: float, found: dict[str, Any]) -> str:
    """Run one experiment on a worker; the text of its result file."""
    import time

    from distributed import get_worker

    experiment, worker, said = Experiment.from_dict(plain), get_worker(), time.monotonic()

    def progress(at: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > 0.5:
            worker.log_event(TOPIC, list(at[:3]))
            said = time.monotonic()

    until = time.monotonic() + BUSY_FOR
    while True:
        try:
            run(experiment, Path(root), progress, None, every, **found)
            return (ResultDirectory(Path(root), experiment).directory / RESULT).read_text("utf-8")
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(1)
