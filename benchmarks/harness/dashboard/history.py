"""Every value that asv has recorded, one by one, with the conditions of its run."""

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asv import util
from asv.machine import iter_machine_files
from asv.results import Results, iter_results, iter_results_paths

from benchmarks.harness import conditions
from benchmarks.harness.dashboard.checked import number
from vaebench.support.kinds import kind

HARDWARE = {"machine", "os", "arch", "cpu", "num_cpu", "ram", "gpu", "vectors", "version"}
"""What results say of a machine; what else its own file says is no version of a package either."""
Host = tuple[str, str]
"""A machine's name and its processor: what is taken for one machine."""
UNKNOWN = "nothing is known about what else used the machine"


@dataclass(frozen=True)
class Reading:
    """One value.

    Attributes:
        benchmark: its name.
        case: the name with the parameters.
        index: of the parameters among all of the benchmark; None without parameters.
        params: their values, by name, as Python writes them.
        value: NaN where the benchmark does not apply, None where it failed.
        spread: quartiles of the samples of a timing.
        commit: in full.
        revision: place of the commit in the history.
        machine: name of the kind of machine.
        environment: versions of Python and of the packages.
        doubt: why a timing is not believed; empty if it is.
        processor: of the machine: one name may stand for several.
        variables: of the environment of the process, such as how many threads it has.
    """

    benchmark: str
    case: str
    index: int | None
    params: Mapping[str, str]
    value: float | None
    spread: tuple[float, float] | None
    commit: str
    revision: int
    machine: str
    environment: tuple[str, ...]
    doubt: str
    processor: str = ""
    variables: tuple[str, ...] = ()

    @property
    def host(self) -> Host:
        """The machine that it was taken on."""
        return self.machine, self.processor

    @property
    def kind(self) -> str:
        """Exact, seeded or timed."""
        return kind(self.benchmark)

    @property
    def there(self) -> bool:
        """Whether it has a number, which can be drawn and compared."""
        return number(self.value)

    @property
    def beyond(self) -> bool:
        """Whether its value is infinite, or too large to be drawn and compared."""
        return self.value is not None and not math.isnan(self.value) and not self.there


def _cases(benchmark: Mapping[str, Any]) -> list[tuple[int | None, str, dict[str, str]]]:
    name, params = benchmark["name"], benchmark["params"]
    if not params:
        return [(None, name, {})]
    chosen = enumerate(itertools.product(*params))
    names = benchmark["param_names"]
    return [(index, f"{name}({', '.join(values)})", dict(zip(names, values, strict=True))) for index, values in chosen]


def doubts(results_dir: str) -> Mapping[str, dict[str, list[tuple[conditions.Conditions, str]]]]:
    """By machine and commit: every recorded run, and why it is not to be compared."""
    found: dict[str, dict[str, list[tuple[conditions.Conditions, str]]]] = {}
    for path in sorted(Path(results_dir).glob(f"*/{conditions.RECORDS}")):
        records = conditions.read(path.parent)
        runs = found.setdefault(path.parent.name, defaultdict(list))
        if records:
            rest = conditions.reference([one.control for one in records])
            for one in records:
                runs[one.commit].append((one, conditions.disturbance(one, rest)))
    return found


def _doubt(runs: list[tuple[conditions.Conditions, str]], started: int | None) -> str:
    """Of a benchmark that began so many milliseconds after 1970; the worst of all runs that went on then."""
    if started is None:
        return UNKNOWN
    found = [why for run, why in runs if run.began <= started / 1000 <= run.ended]
    return max(found, key=len) if found else UNKNOWN


def versions(params: Mapping[str, str], machine: Collection[str] = ()) -> tuple[str, ...]:
    """Of Python and of the packages, from all that asv says of a result; `machine` names what is of the machine."""
    left_out = HARDWARE | set(machine)
    return tuple(f"{key} {version or ''}" for key, version in sorted(params.items()) if key not in left_out)


def _of(
    result: Results, benchmark: Mapping[str, Any], runs: list, revision: int, environment: tuple[str, ...]
) -> Iterator[Reading]:
    name, params = benchmark["name"], benchmark["params"]
    values, stats = result.get_result_value(name, params), result.get_result_stats(name, params)
    doubt = _doubt(runs, result.started_at.get(name))
    measured = set(itertools.product(*result.get_result_params(name)))
    for (index, case, chosen), value, stat in zip(_cases(benchmark), values, stats, strict=True):
        if tuple(chosen.values()) not in measured:
            continue  # another profile's
        spread = (stat["q_25"], stat["q_75"]) if stat and stat.get("q_25") is not None else None
        yield Reading(
            name, case, index, chosen, _float(value), spread, result.commit_hash, revision, result.params["machine"],
            environment, doubt, _processor(result.params), versions(result.env_vars),
        )  # fmt: skip


def _float(value: float | None) -> float | None:
    """JSON has whole numbers of any length; those that no float holds are infinite."""
    try:
        return value if value is None else float(value)
    except OverflowError:
        return math.inf if value and value > 0 else -math.inf


def _processor(params: Mapping[str, str]) -> str:
    return ", ".join(filter(None, (params.get(name) for name in ("cpu", "vectors", "gpu"))))


def _machines(results_dir: str) -> dict[str, set[str]]:
    """What the file of each machine says, by its name."""
    files = map(util.load_json, iter_machine_files(results_dir))
    return {entry["machine"]: set(entry) for entry in files if "machine" in entry}


def unreadable(results_dir: str) -> int:
    """How many files of results asv cannot read: damaged ones, and those in the format of another version."""
    return sum(1 for _ in iter_results_paths(results_dir)) - sum(1 for _ in iter_results(results_dir))


def read(results_dir: str, benchmarks: Mapping[str, Any], revisions: Mapping[str, int]) -> list[Reading]:
    """All values of commits that have a place in the history, oldest first."""
    runs, machines, found = doubts(results_dir), _machines(results_dir), []
    for result in iter_results(results_dir):
        revision = revisions.get(result.commit_hash)
        if revision is None:
            continue
        machine = result.params["machine"]
        known = runs.get(machine, {}).get(result.commit_hash, [])
        environment = versions(result.params, machines.get(machine, ()))
        for name in sorted(result.get_result_keys(benchmarks)):
            found.extend(_of(result, benchmarks[name], known, revision, environment))
    return sorted(found, key=lambda reading: (reading.revision, reading.machine, reading.case))
