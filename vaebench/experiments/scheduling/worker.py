"""One experiment in a process of its own: JSON in, lines of JSON out, a snapshot on Ctrl-C.

`python -m vaebench.experiments.scheduling.worker` reads {"experiment", "root", "every", "found"} from its standard
input. It writes {"step"} as it goes and ends with {"done"}, {"stopped"} (a step) or {"failed"} (a sentence).
"""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from vaebench.experiments.experiment import Experiment
from vaebench.experiments.running import Interrupted, Progress, run
from vaebench.experiments.storage import BusyError
from vaebench.training.compilation import keep_code

SAY_EVERY = 0.2  # seconds
REFUSALS = (ValueError, LookupError, OSError, BusyError, RuntimeError)


def main() -> None:
    """Run the experiment that the standard input describes."""
    asked: list[int] = []
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda number, _: asked.append(number))
    keep_code()
    torch.set_num_threads(1)  # this is the main of a process of its own, one of as many as there are cores
    task, said = json.load(sys.stdin), 0.0

    def say(**line: Any) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def progress(at: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            try:
                say(step=at.step, note=at.note)
            except BrokenPipeError:  # whoever listened is gone
                asked.append(signal.SIGPIPE)

    try:
        experiment = Experiment.from_dict(task["experiment"])
        run(experiment, Path(task["root"]), progress, lambda: bool(asked), task["every"], **task["found"])
    except Interrupted as stopped:
        say(stopped=stopped.step)
    except REFUSALS as refusal:
        say(failed=f"{refusal}")
    else:
        say(done=True)


if __name__ == "__main__":
    main()
