"""Many experiments on a cluster, by dask.distributed (`pip install 'vaebench[cluster]'`).

The scheduler reruns the experiments of a worker that is lost. Where workers share the file system of the results,
a rerun goes on from the snapshot; where they do not, it starts again, and the result travels back.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import EVERY, Progress, run
from vaebench.experiments.scheduling.engine import Outcome
from vaebench.experiments.storage import RESULT, BusyError, ResultDirectory
from vaebench.support.files import write_whole
from vaebench.support.texts import sentence, shown

TOPIC = "vaebench"
RETRIES = 2
PATIENCE = "10s"  # with a scheduler that does not answer
BUSY_FOR = 30.0  # seconds that a rerun waits for the process it replaces to let go
POLL = 0.2  # seconds
ASK_EVERY = 1.0  # seconds between questions of a worker whether it is to stop
LET_GO = 30.0  # seconds that workers have to keep a snapshot
ADDRESS = re.compile(r"((tcp|tls|ws|wss|ucx)://)?[\w.\-\[\]:]+:\d{1,5}")


class SchedulerLostError(RuntimeError):
    """The scheduler was there and is no more."""


@dataclass(frozen=True)
class Cluster:
    """Where a scheduler is, and how to be let in.

    Attributes:
        address: such as "tcp://10.0.0.1:8786".
        ca: of a tls:// address, the certificate authority's file.
        certificate: one's own.
        key: its key.

    Raises:
        ValueError: if the address is none, or certificates and address do not go together.
    """

    address: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self):
        if not ADDRESS.fullmatch(self.address):
            example = "write one such as tcp://10.0.0.1:8786"
            raise ValueError(f"{shown(self.address)} is no address of a scheduler: {example}.")
        named = [name for name in ("ca", "certificate", "key") if getattr(self, name) is not None]
        if self.address.startswith("tls://") and len(named) < 3:
            raise ValueError(f"{self.address} needs --tls-ca, --tls-cert and --tls-key.")
        if not self.address.startswith("tls://") and named:
            raise ValueError(f"Certificates are for tls:// addresses, got {self.address}.")
        for name in named:
            if not Path(getattr(self, name)).is_file():
                raise ValueError(f"There is no file {getattr(self, name)!r} with the {name}.")


def run_on_cluster(
    experiments: Sequence[Experiment],
    root: Path,
    cluster: Cluster,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
    every: float = EVERY,
    found: Mapping[str, Any] | None = None,
) -> Iterator[Outcome]:
    """Hand experiments to a scheduler, and take their results as they come.

    Args:
        experiments: distinct.
        root: of the results, here and on the workers.
        cluster: where the scheduler is.
        progress: told the steps of each.
        stop: asked often; where it says so what has not begun is cancelled, and what runs keeps a snapshot.
        every: seconds between snapshots.
        found: how data sets in files are found on the workers.

    Yields:
        Outcomes, in the order in which they end.

    Raises:
        SchedulerLostError: if the scheduler goes away meanwhile.
    """
    root, end = root.absolute(), f"vaebench-stop-{uuid4().hex}"
    client = _client(cluster)
    try:
        from distributed import Event

        client.subscribe_topic(TOPIC, lambda event: progress(Progress(*event[1])))
        told = Event(end, client=client)
        words = (str(root), every, dict(found or {}), end)
        waiting = {
            client.submit(_remote, one.to_dict(), *words, key=f"vaebench-{one.hash}", retries=RETRIES): one
            for one in experiments
        }
        while waiting:
            _require_scheduler(client, cluster)
            for future in [future for future in waiting if future.done()]:
                one = waiting.pop(future)
                _require_scheduler(client, cluster)
                yield _outcome(future, one, root)
            if stop():
                told.set()
                _let_go(waiting)
                client.cancel(list(waiting))
                return
            time.sleep(POLL)
    except (OSError, TimeoutError) as trouble:
        raise SchedulerLostError(_lost(cluster, sentence(trouble))) from None
    finally:
        client.close(timeout=1)


def _client(cluster: Cluster) -> Any:
    try:
        from distributed import Client
        from distributed.security import Security
    except ImportError:
        raise ValueError("--scheduler needs dask.distributed: pip install 'vaebench[cluster]'.") from None
    security = None
    if cluster.ca is not None:
        own = {"tls_ca_file": cluster.ca, "tls_client_cert": cluster.certificate, "tls_client_key": cluster.key}
        security = Security(require_encryption=True, **own)
    try:
        return Client(cluster.address, timeout=PATIENCE, set_as_default=False, security=security)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"No scheduler answers at {cluster.address!r} ({sentence(error)}); start one with `dask scheduler`."
        ) from None


def _require_scheduler(client: Any, cluster: Cluster) -> None:
    if client.status != "running":
        raise SchedulerLostError(_lost(cluster, f"the connection is {client.status}"))


def _lost(cluster: Cluster, why: str) -> str:
    return f"The scheduler at {cluster.address} is gone ({why.rstrip('.')}); results and snapshots so far are kept."


def _let_go(waiting: Mapping[Any, Experiment]) -> None:
    """Wait until what runs has kept a snapshot; what has not begun asks, too, and ends at once."""
    until = time.monotonic() + LET_GO
    while time.monotonic() < until and not all(future.done() for future in waiting):
        time.sleep(POLL)


def _outcome(future: Any, experiment: Experiment, root: Path) -> Outcome:
    if future.status != "finished":
        why = sentence(future.exception()) if future.status == "error" else future.status
        return Outcome(experiment, failed=why)
    text, path = future.result(), ResultDirectory(root, experiment).directory / RESULT
    if text is None:
        return Outcome(experiment, stopped=0)
    if not path.exists():  # the worker has a file system of its own
        write_whole(path, text.encode())
    return Outcome(experiment)


def _remote(plain: Mapping[str, Any], root: str, every: float, found: dict[str, Any], end: str) -> str | None:
    """Run one experiment on a worker; the text of its result file, or None if it was told to stop."""
    from distributed import Event, get_client, get_worker

    from vaebench.experiments.running import Interrupted

    experiment, worker = Experiment.from_dict(plain), get_worker()
    said = asked = time.monotonic()
    told, client = False, get_client()

    def progress(at: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > 0.5:
            worker.log_event(TOPIC, list(at[:3]))
            said = time.monotonic()

    def stop() -> bool:
        nonlocal told, asked
        if not told and time.monotonic() - asked > ASK_EVERY:
            told, asked = bool(Event(end, client=client).is_set()), time.monotonic()
        return told

    until = time.monotonic() + BUSY_FOR
    while True:
        try:
            run(experiment, Path(root), progress, stop, every, **found)
            return (ResultDirectory(Path(root), experiment).directory / RESULT).read_text("utf-8")
        except Interrupted:
            return None
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(1)
