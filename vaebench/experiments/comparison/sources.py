"""What a name on the command line means: a report of the tests, a run, or a commit."""

from pathlib import Path

from vaebench.experiments.comparison import claims, commits
from vaebench.experiments.comparison.change import Change

RESULT = "trajectory.csv"
COMPARED = {"crossed", "recovered", "improved", "moved", "unjudged", "time", "same"}


def compare(before: str, after: str, repository: Path) -> list[Change]:
    """Compare two reports of pytest-benchmark, two runs, or two commits of a repository.

    Each is a .json file, a trajectory or a directory with a trajectory.csv, or a revision.

    Returns:
        The rows.

    Raises:
        ValueError: if one cannot be read, or if they have nothing in common.
    """
    kinds = [_kind(name, repository) for name in (before, after)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{before} is {kinds[0]} and {after} is {kinds[1]}: compare two of one kind.")
    compare_kind = {"a report": _reports, "a run": _runs}.get(kinds[0])
    paths = Path(before), Path(after)
    rows = compare_kind(*paths) if compare_kind else commits.compare_commits(before, after, repository)
    if not any(row.kind in COMPARED for row in rows):
        raise ValueError(f"{before} and {after} have no measurement in common.")
    return rows


def _kind(name: str, repository: Path) -> str:
    path = Path(name)
    if path.is_file():
        return "a report" if path.suffix == ".json" else "a run"
    if (path / RESULT).is_file():
        return "a run"
    if commits.resolve(name, repository):
        return "a commit"
    raise ValueError(f"{name!r} is no file, no directory with a {RESULT}, and no commit of this repository.")


def _reports(before: Path, after: Path) -> list[Change]:
    return claims.compare(claims.read(before), claims.read(after))


def _runs(before: Path, after: Path) -> list[Change]:
    from vaebench.experiments.comparison import runs  # imports torch, which a report does not need

    first, second = (runs.read(path / RESULT if path.is_dir() else path) for path in (before, after))
    return runs.compare(first, second)
