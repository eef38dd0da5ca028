import subprocess
import sys

import pytest

import cfrec
from cfrec.checkpoints import Checkpoint, sweep_checkpoints, unfinished_runs


@pytest.fixture(scope="module")
def unfinished(blocks, block_config):
    """A run as it stood after its second epoch."""
    kept = []
    cfrec.train(*blocks.split(), block_config, on_checkpoint=kept.append, checkpoint_seconds=0)
    return kept[0]


def leave(models, run, unfinished):
    """What a process leaves that ends in the midst of a run."""
    checkpoint = Checkpoint(models, run)
    assert checkpoint.keep(unfinished)
    checkpoint.release()


def test_what_is_kept_can_be_resumed_to_the_same_bits(blocks, unfinished, trained, tmp_path):
    leave(tmp_path, "a1", unfinished)
    [found] = unfinished_runs(tmp_path)
    loaded = cfrec.load_model(found.folder)
    assert (found.run, loaded.outcome, len(loaded.history)) == ("a1", "unfinished", len(unfinished.history))
    resumed = cfrec.train(*blocks.split(), loaded.config, resume=loaded)
    assert resumed.movie_factors.tolist() == trained.movie_factors.tolist()


def test_checkpoints_are_no_models_of_the_list(unfinished, tmp_path):
    leave(tmp_path, "a1", unfinished)
    assert cfrec.list_models(tmp_path) == []


def test_a_run_that_goes_on_is_offered_to_nobody(unfinished, tmp_path):
    mine, other = Checkpoint(tmp_path, "a1"), Checkpoint(tmp_path, "a1")
    assert mine.keep(unfinished)
    assert unfinished_runs(tmp_path) == []
    assert not other.claim()
    assert not other.keep(unfinished)
    mine.release()
    assert [c.run for c in unfinished_runs(tmp_path)] == ["a1"]
    assert other.claim()


def test_a_process_that_is_killed_lets_go_of_its_run(unfinished, tmp_path):
    leave(tmp_path, "a1", unfinished)
    code = (
        "import sys, time\nfrom cfrec.checkpoints import Checkpoint\nheld = Checkpoint(sys.argv[1], 'a1')\n"
        "print(held.claim(), flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"True\n"
        assert unfinished_runs(tmp_path) == []  # though it is another process that holds it
        holder.kill()
    assert [c.run for c in unfinished_runs(tmp_path)] == ["a1"]


def test_a_run_is_found_that_was_killed_while_one_checkpoint_took_the_place_of_another(unfinished, tmp_path):
    leave(tmp_path, "a1", unfinished)
    (tmp_path / ".unfinished" / "a1").rename(tmp_path / ".unfinished" / ".a1.old")
    [found] = unfinished_runs(tmp_path)
    assert found.run == "a1"
    assert cfrec.load_model(found.folder).version == unfinished.version
    found.drop()
    assert unfinished_runs(tmp_path) == []


def test_nothing_is_left_of_a_run_that_is_dropped(unfinished, tmp_path):
    checkpoint = Checkpoint(tmp_path, "a1")
    checkpoint.keep(unfinished)
    checkpoint.drop()
    assert unfinished_runs(tmp_path) == []
    assert [p.name for p in (tmp_path / ".unfinished").iterdir()] == [".cfrec.lock"]


def test_the_latest_three_are_kept(unfinished, tmp_path):
    for run in ("a1", "b2", "c3", "d4", "e5"):
        leave(tmp_path, run, unfinished)
    sweep_checkpoints(tmp_path)
    assert [c.run for c in unfinished_runs(tmp_path)] == ["e5", "d4", "c3"]


def test_what_a_killed_writer_left_is_swept_up(unfinished, tmp_path):
    leave(tmp_path, "a1", unfinished)
    (tmp_path / ".unfinished" / ".a1.new-abcd_123").mkdir()
    sweep_checkpoints(tmp_path)
    assert not (tmp_path / ".unfinished" / ".a1.new-abcd_123").exists()
    assert [c.run for c in unfinished_runs(tmp_path)] == ["a1"]


def test_without_a_folder_there_are_none(tmp_path):
    assert unfinished_runs(tmp_path / "nowhere") == []
    sweep_checkpoints(tmp_path / "nowhere")


def test_a_run_that_another_goes_on_with_is_not_dropped(unfinished, tmp_path):
    """A page that was drawn before the other resumed it still offers to discard it."""
    leave(tmp_path, "a1", unfinished)
    [mine], [stale] = unfinished_runs(tmp_path), unfinished_runs(tmp_path)
    assert mine.claim()
    stale.drop()
    assert mine.folder.is_dir()
    assert mine.keep(unfinished)
    assert unfinished_runs(tmp_path) == []
    mine.drop()
    assert not mine.folder.exists()


def test_a_checkpoint_is_claimed_once(unfinished, tmp_path):
    """Two clicks on Resume bring the same one."""
    leave(tmp_path, "a1", unfinished)
    [found] = unfinished_runs(tmp_path)
    assert [found.claim(), found.claim()] == [True, False]
