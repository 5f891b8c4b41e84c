"""One experiment in a process of its own: JSON in, lines of JSON out, a snapshot on Ctrl-C.

`python -m vaebench.experiments.scheduling.worker` reads {"experiment", "root", "every", "found"} from the first line of
its standard input. It writes {"step"} as it goes and {"warning"} where there is one, and ends with {"done"},
{"stopped"} (a step) or {"failed"} (a sentence). Where its standard input ends, its parent is gone: it stops, too.
"""

import gc
import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from vaebench.data.files import NotOriginalWarning
from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import Interrupted, Progress, run
from vaebench.experiments.storage import BusyError
from vaebench.support.texts import sentence
from vaebench.training.compilation import keep_code

SAY_EVERY = 0.2  # seconds
LAST_SNAPSHOT = 10.0  # seconds that a process without a parent has to keep what it has
SIGNS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
REFUSALS = (ValueError, LookupError, OSError, BusyError)


def main() -> None:
    """Run the experiment that the standard input describes."""
    asked: list[int] = []
    for name in SIGNS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: asked.append(number))
    keep_code()
    torch.set_num_threads(1)  # this is the main of a process of its own, one of as many as there are cores
    task, said = json.loads(sys.stdin.readline()), 0.0
    threading.Thread(target=_end_with_parent, args=(asked,), daemon=True).start()

    def progress(at: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            try:
                _say(step=at.step, note=at.note)
            except BrokenPipeError:  # whoever listened is gone
                asked.append(signal.SIGPIPE)

    warnings.showwarning = _warn
    try:
        experiment = Experiment.from_dict(task["experiment"])
        run(experiment, Path(task["root"]), progress, lambda: bool(asked), task["every"], **task["found"])
    except Interrupted as stopped:
        _say(stopped=stopped.step)
    except REFUSALS as refusal:
        _say(failed=sentence(refusal))
    except Exception as broken:
        _say(failed=f"{type(broken).__name__}: {sentence(broken)}")
    else:
        _say(done=True)
    gc.freeze()  # the process ends: looking through torch's modules for garbage would take it most of a second


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _warn(message: Warning | str, *_: Any) -> None:
    if isinstance(message, NotOriginalWarning):
        _say(warning=str(message))


def _end_with_parent(asked: list[int]) -> None:
    """Wait until the standard input ends; then ask for a snapshot, and end whatever comes of it."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    asked.append(signal.SIGHUP)
    time.sleep(LAST_SNAPSHOT)
    os._exit(1)


if __name__ == "__main__":
    main()
