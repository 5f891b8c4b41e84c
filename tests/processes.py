"""Commands in processes of their own that import nothing: each is forked from one process that has torch."""

import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["vaebench.experiments", "vaebench.experiments.scheduling.engine", "vaebench.cli.run"])


def _run(arguments: tuple[str, ...], printed: str, said: str, limit: int | None) -> None:
    from vaebench.cli import app

    for number, path in ((1, printed), (2, said)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["vaebench", *arguments]
    app(arguments)


class Command:
    """`vaebench` with arguments, at work; the largest file that it and its workers may write is `limit` bytes."""

    def __init__(self, folder: Path, *arguments: str, limit: int | None = None):
        self._printed, self._said = folder / "printed.txt", folder / "said.txt"
        task = (arguments, str(self._printed), str(self._said), limit)
        self._process = CONTEXT.Process(target=_run, args=task)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, sign: signal.Signals) -> None:
        if self._process.is_alive():
            os.kill(self.pid, sign)

    def end(self, patience: float = 90) -> tuple[int | None, str, str]:
        """Its exit status, what it printed and what it said beside, once it has ended."""
        self._process.join(patience)
        return self._process.exitcode, self._printed.read_text("utf-8"), self._said.read_text("utf-8")


def write_often(place: Path, text: str) -> None:
    """Replace a directory of two files three hundred times."""
    from vaebench.report.writing import replaced

    for _ in range(300):
        with replaced(place) as temporary:
            temporary.mkdir()
            for name in "ab":
                (temporary / name).write_text(text)
