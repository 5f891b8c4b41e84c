"""`python -m benchmarks.harness.compare BASE`: time BASE and HEAD in turn, in one job on one machine.

Exit status: 0 nothing got slower, 1 something did or no longer works, 2 the question could not be asked, 130 it was
interrupted.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence

from asv.util import UserError

from benchmarks.harness import gate
from benchmarks.harness.compare.job import LAUNCHES, PAIRS, SCRATCH, Finding, compare, export
from vaebench.support.comments import Section, comment
from vaebench.support.files import write_whole


def progress(done: int) -> None:
    """Say on stderr how far it is."""
    total = LAUNCHES * PAIRS
    print(f"\r{done} of {total} pairs of processes", end="\n" if done == total else "", file=sys.stderr, flush=True)


def report(findings: Sequence[Finding]) -> int:
    """Print a line for each benchmark, and return the exit status they call for."""
    for finding in findings:
        print(finding)
    if all(finding.ratio is None for finding in findings):
        print("Nothing was compared: no benchmark runs at both commits.")
        return 2
    return int(any(finding.verdict in {"slower", "fails"} for finding in findings))


def markdown(findings: Sequence[Finding]) -> str:
    """The comment for a pull request."""
    by_verdict: dict[str, list[Sequence[str]]] = defaultdict(list)
    for finding in findings:
        change = "" if finding.ratio is None else f"{100 * (finding.ratio - 1):+.1f} %"
        by_verdict[finding.verdict].append((finding.benchmark, change, finding.reason or finding.span))
    header, worse = ("benchmark", "time", "interval"), by_verdict["slower"] + by_verdict["fails"]
    sections = [
        Section("Regressions", header, worse),
        Section("Improvements", header, by_verdict["faster"]),
        Section("Unchanged", header, by_verdict["same"], folded=True),
        Section("Not compared", header, by_verdict["n/a"], folded=True),
    ]
    return comment(f"Times, HEAD and BASE in turn: {len(worse)} of {len(findings)} benchmarks got slower", sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(prog="compare", description="Time HEAD against BASE.")
    parser.add_argument("base", metavar="BASE", help="the commit to compare with, such as main")
    chosen = parser.parse_args(arguments)
    try:
        commits = gate.commits(chosen.base)
        folders = [export(commit, SCRATCH / side) for commit, side in zip(commits, ("base", "head"), strict=True)]
        outcome = compare(folders[0], folders[1], False, progress)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped before a verdict; what was timed so far is not kept.", file=sys.stderr)
        return 130
    outcome = dict(zip(("base", "head"), commits, strict=True)) | outcome
    findings = [Finding(**finding) for finding in outcome["findings"]]
    status = report(findings)
    out = SCRATCH / f"{commits[0][:8]}-{commits[1][:8]}.json"
    write_whole(out, (json.dumps(outcome, indent=1) + "\n").encode())
    said = out.with_suffix(".md")
    write_whole(said, markdown(findings).encode())
    print(f"The numbers are in {out}, as a comment for a pull request in {said}.")
    return status


if __name__ == "__main__":
    sys.exit(main())
