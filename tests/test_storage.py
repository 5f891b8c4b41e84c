"""Results and snapshots on disk: whole, one's own and nobody else's, or refused and run again."""

import json
from dataclasses import replace

import pytest

from tests.test_running import SMALL, same
from vaebench.experiments import BusyError, Interrupted, ResultDirectory, run
from vaebench.experiments.storage import RESULT, SET_ASIDE, STATE

SHORT = replace(SMALL, steps=60, seeds=(0,))
OTHER = replace(SHORT, seeds=(1,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return root, run(SHORT, root)


@pytest.fixture
def place(tmp_path, whole):
    """A directory with the result of a run."""
    there = ResultDirectory(tmp_path, SHORT)
    there.directory.mkdir()
    (there.directory / RESULT).write_bytes((whole[0] / SHORT.hash / RESULT).read_bytes())
    assert there.complete()
    return there


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: b"",
        lambda content: b"\xff\xfe" + content,
        lambda content: content.replace(b'"sha256"', b'"sha257"'),
        lambda content: content.replace(b"step_loss", b"step_lass"),
        lambda content: content.replace(SHORT.hash.encode(), OTHER.hash.encode()),
        lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    ],
    ids=["cut", "empty", "binary", "no digest", "a column", "a header's word", "a digit"],
)
def test_a_result_with_changed_bytes_is_none_and_is_run_again(damage, place, tmp_path, whole):
    path = place.directory / RESULT
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert not place.complete()
    assert RESULT in (place.trouble() or "")
    with pytest.raises(ValueError, match=RESULT):
        place.result()
    assert same(run(SHORT, tmp_path), whole[1])
    assert place.complete()
    assert (place.directory / SET_ASIDE).read_bytes() == damaged


def test_the_result_of_another_experiment_is_refused(tmp_path, place):
    run(OTHER, tmp_path)
    (place.directory / RESULT).write_bytes((tmp_path / OTHER.hash / RESULT).read_bytes())
    assert not place.complete()
    with pytest.raises(ValueError, match=f"is of the experiment '{OTHER.hash}', not of {SHORT.hash}"):
        place.result()


def stopped(tmp_path, experiment):
    with pytest.raises(Interrupted):
        run(experiment, tmp_path, stop=lambda: True)
    return ResultDirectory(tmp_path, experiment)


def test_a_snapshot_with_any_changed_byte_is_refused(tmp_path):
    """Every seventh byte of it in turn; the padding of the header alone says nothing."""
    there = stopped(tmp_path, SHORT)
    path = there.directory / STATE
    content, accepted, refusals = path.read_bytes(), [], []
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            there.unfinished()
            accepted.append(place)
        except ValueError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > 100 and all(str(path) in refusal for refusal in refusals)
    end = 8 + int.from_bytes(content[:8], "little")
    assert all(content[place : place + 1] == b" " and place < end for place in accepted)


def test_the_snapshot_of_another_run_is_refused(tmp_path):
    there, other = stopped(tmp_path, SHORT), stopped(tmp_path, OTHER)
    (there.directory / STATE).write_bytes((other.directory / STATE).read_bytes())
    with pytest.raises(ValueError, match=f"is of the experiment '{OTHER.hash}', not of {SHORT.hash}"):
        run(SHORT, tmp_path)


def test_the_lock_is_let_go_after_a_failed_run_in_the_same_process(tmp_path):
    there = ResultDirectory(tmp_path, SHORT)
    with pytest.raises(RuntimeError, match="broke"), there.taken():
        raise RuntimeError("broke")
    there.require_free()
    with there.taken(), pytest.raises(BusyError, match="Another process is running"):
        there.require_free()
    there.require_free()


def test_the_digest_of_the_data_stands_in_the_result(whole):
    (train,) = whole[1].metadata["data"].values()
    assert len(bytes.fromhex(train)) == 32
    assert json.loads(json.dumps(whole[1].metadata["data"])) == {"train": train}
