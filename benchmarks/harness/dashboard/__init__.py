"""Make ``asv publish`` write a dashboard that a reader can trust, beginning with an overview.

asv loads this module through ``plugins`` in asv.conf.json, and calls `Judged.publish` and `Dashboard.publish` after it
has written its own pages. The first replaces asv's list of regressions, which takes every timing of a busy machine for
one, the second writes the first page and makes all pages whole without a network.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from asv import util
from asv.machine import iter_machine_files
from asv.plugins.regressions import Regressions
from asv.publishing import OutputPublisher
from asv.repo import NoSuchNameError
from asv.results import iter_existing_hashes
from asv.util import UserError

from benchmarks.harness import triage
from benchmarks.harness.dashboard import changes, checked, history, overview, pages, reports
from benchmarks.harness.dashboard.changes import Change, Reason
from benchmarks.harness.dashboard.history import Reading


def setup() -> None:
    """Called by asv as it loads the plugin, before it reads anything of the history."""
    checked.install()


def require_whole_history(conf: Any, repo: Any) -> None:
    """Refuse a shallow clone, in which asv drops results of commits that it does not find, and ends well."""
    asked = ["git", "-C", conf.repo, "rev-parse", "--is-shallow-repository"]
    if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() != "true":
        return
    recorded = set(iter_existing_hashes(conf.results_dir))
    here = {commit for branch in conf.branches for commit in repo.get_branch_commits(branch)}
    if missing := recorded - here:
        raise UserError(
            f"This clone is shallow: {len(missing)} of {len(recorded)} commits with results are not in it. "
            "Get them with git fetch --unshallow, and publish again."
        )


def on_branches(conf: Any, repo: Any, revisions: Mapping[str, int]) -> dict[str, int]:
    """Places in the history of the commits that the pages show."""
    here = {commit for branch in conf.branches for commit in repo.get_branch_commits(branch)}
    return {commit: revision for commit, revision in revisions.items() if commit in here}


def reasons(conf: Any, commits: Mapping[int, str]) -> Reason:
    """What the triage file says about a case that moved between two revisions."""
    known = triage.read()

    @cache
    def between(since: int, until: int) -> tuple[str, ...]:
        """Commits of merged branches too, which asv's own question leaves out."""
        asked = ["git", "-C", conf.repo, "rev-list", f"{commits[since]}..{commits[until]}", "--"]
        return tuple(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split())

    return lambda case, since, until: known.why_moved(case, between(since, until))


def strangers(repo: Any) -> list[str]:
    """Commits of the triage file that are not in the history."""
    found = []
    for entry in triage.read().moved:
        try:
            repo.get_hash_from_name(entry.commit)
        except NoSuchNameError:
            found.append(entry.commit)
    return found


def notes(conf: Any, repo: Any, readings: Sequence[Reading], commits: Mapping[int, str]) -> list[str]:
    """What a reader must know about the results as a whole, each in a sentence."""
    found = []
    if left_out := set(iter_existing_hashes(conf.results_dir)) - set(commits.values()):
        found.append(f"Left out: results of commits that are not on this branch ({len(left_out)}).")
    if unreadable := history.unreadable(conf.results_dir):
        found.append(f"Left out: files of results that asv cannot read ({unreadable}); its messages say why.")
    if beyond := [one for one in readings if one.beyond]:
        words = f"{len(beyond)} values are infinite, or too large to be drawn or compared; the last is"
        found.append(f"{words} of {beyond[-1].case} at {beyond[-1].commit[:8]}.")
    return found + [f"{triage.FILE} gives reasons for {commit}, which is no commit here." for commit in strangers(repo)]


def judged(conf: Any, repo: Any, benchmarks: Any, revisions: Mapping[str, int]) -> tuple[list, Reason, dict[int, str]]:
    """All readings, the reasons, and the commits by revision."""
    places = on_branches(conf, repo, revisions)
    commits = {revision: commit for commit, revision in places.items()}
    return history.read(conf.results_dir, benchmarks, places), reasons(conf, commits), commits


class Judged(Regressions):
    """Regressions by the rules of `changes`, in asv's own form."""

    order = Regressions.order + 1

    @classmethod
    def publish(cls, conf, repo, benchmarks, graphs, revisions):
        """Replace the list and the feed that asv has written."""
        require_whole_history(conf, repo)
        readings, why, _ = judged(conf, repo, benchmarks, revisions)
        varying = {name for name, values in graphs.get_params().items() if len(values) > 1}
        rows = [cls._row(change, graphs, varying) for change in changes.regressions(readings, why)]
        cls._save(conf, {"regressions": rows})
        by_revision = {revision: commit for commit, revision in revisions.items()}
        cls._save_feed(conf, benchmarks, rows, revisions, by_revision)

    @staticmethod
    def _row(change: Change, graphs: Any, varying: set[str]) -> list[object]:
        reading = change.reading
        wanted = {f"machine {reading.machine}", *reading.environment, *(f"env-{one}" for one in reading.variables)}
        mine = [graph for _, graph in graphs if graph.benchmark_name == reading.benchmark]
        graph = max(mine, key=lambda graph: len(wanted & {f"{name} {value}" for name, value in graph.params.items()}))
        params = {name: value for name, value in graph.params.items() if name in varying}
        jump = [change.since, change.until, change.before, change.after]
        return [reading.case, f"{graph.path}.json", params, reading.index, change.after, change.before, [jump]]


class Dashboard(OutputPublisher):
    """The first page, and all pages whole without a network."""

    name = "dashboard"
    button_label = "Dashboard"
    description = "An overview, and every asset from the pages themselves"

    @classmethod
    def publish(cls, conf, repo, benchmarks, graphs, revisions):
        """Improve the pages that asv has just written, and put the first page before them."""
        html_dir = Path(conf.html_dir)
        pages.improve(html_dir)
        shutil.copy(Path(__file__).with_name("overview.css"), html_dir)
        readings, why, commits = judged(conf, repo, benchmarks, revisions)
        overview.write(
            html_dir,
            readings,
            changes.exact_changes(readings, why),
            changes.regressions(readings, why),
            [reading for reading in changes.lost(readings) if triage.read().why_gone(reading.case) is None],
            {entry["machine"]: entry for entry in map(util.load_json, iter_machine_files(conf.results_dir))},
            {name: benchmark.get("unit", "") for name, benchmark in dict(benchmarks).items()},
            commits,
            reports.copy(Path(conf.repo), html_dir),
            notes(conf, repo, readings, commits),
        )
