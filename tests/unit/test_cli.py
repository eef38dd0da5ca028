import json
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from cfrec.cli import build_parser, main
from cfrec.console import stop_on_interrupt
from cfrec.storage import load_model

ROWS = [(u, m, 5 if u % 2 == m % 2 else 1) for u in range(12) for m in range(10)]


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("user,item,rating,title\n" + "".join(f"{u},{m},{s},Film {m} (199{m})\n" for u, m, s in ROWS))
    return path


def run(capsys, *argv):
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


def run_json(capsys, *argv):
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 0
    return json.loads(out)


def fails(capsys, *argv):
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert not out or ("--ratings" in argv and out.startswith("Taken: "))  # a file is read before it can be refused
    assert err.count("\n") == 1
    return err


def test_train_writes_the_contract_s_json_and_a_model(capsys, csv, tmp_path):
    out = tmp_path / "models" / "mine"
    result = run_json(
        capsys, "train", "--ratings", csv, "--preset", "quick", "--epochs", 2, "--n-factors", 3, "--choice-weight", 0, "--out", out
    )
    assert {"mse", "rmse", "mae", "epochs", "best_epoch", "fit_seconds", "seconds", "device", "n_parameters", "history"} <= result.keys()
    assert (result["epochs"], result["device"], result["n_parameters"]) == (2, "cpu", (12 + 10) * 4)
    assert [m["epoch"] for m in result["history"]] == [1, 2]
    assert result["seconds"] > result["fit_seconds"] > 0
    model = load_model(out)
    assert model.config.n_factors == 3
    assert model.split == (0.2, 42)
    assert dict(model.metrics) == {name: result[name] for name in ("mse", "rmse", "mae")}
    assert run_json(capsys, "evaluate", out, "--ratings", csv)["mse"] == pytest.approx(result["mse"])


def test_train_says_what_happened_in_words(capsys, csv):
    code, out, err = run(capsys, "train", "--ratings", csv, "--preset", "quick", "--epochs", 2)
    assert code == 0
    assert "completed after 2 whole epochs; the weights of epoch " in out
    assert "give --out" in out
    assert err.startswith("epoch 1/2  train ")  # not a terminal: a line an epoch


def test_a_file_says_what_is_in_it_and_which_column_is_which_can_be_given(capsys, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("".join(f"{m},{u},{(u * m) % 5}\n" for u in range(1, 8) for m in range(1, 9)))
    code, out, err = run(capsys, "data", path)
    assert (code, err) == (0, "")
    assert out.startswith("Taken: user from column 1, movie from column 2, rating from column 3.\nGuessed by their values or order:")
    assert "own.csv (your own ratings): 56 ratings by 8 users of 7 movies" in out
    assert " 0 ####" in out
    options = ["--columns", "movie=1,user=2,rating=3,timestamp=none", "--not-rated", 0]
    found = run_json(capsys, "data", path, *options)
    n_marks = sum((u * m) % 5 == 0 for u in range(1, 8) for m in range(1, 9))
    assert (found["n_users"], found["n_movies"], found["n_ratings"]) == (6, 7, 56 - n_marks)
    assert found["report"]["reasons"] == {"rating is 0: not rated": n_marks}
    assert [column["role"] for column in found["report"]["columns"]] == ["movie", "user", "rating"]
    assert "no role 'person'" in fails(capsys, "data", path, "--columns", "person=1")


def test_where_all_stars_are_the_same_it_says_that_there_are_none_to_guess(capsys, tmp_path):
    path = tmp_path / "watched.csv"
    path.write_text("user,item,rating\n" + "".join(f"{u},{m},1\n" for u, m, _ in ROWS))
    told = {weight: run(capsys, "train", "--ratings", path, "--preset", "quick", "--choice-weight", weight) for weight in (5, 0)}
    assert "there are no stars to guess: who rated what is all that was learned" in "".join(told[5][1:])
    assert "no stars to guess" not in "".join(told[0][1:])  # nothing else was learned there


def test_resume_goes_on_where_the_run_ended(capsys, csv, tmp_path):
    whole = run_json(capsys, "train", "--ratings", csv, "--preset", "quick", "--epochs", 3, "--schedule", "constant")
    out = tmp_path / "m"
    run_json(capsys, "train", "--ratings", csv, "--preset", "quick", "--epochs", 1, "--schedule", "constant", "--out", out, "--resumable")
    rest = run_json(capsys, "train", "--ratings", csv, "--resume", out, "--epochs", 3)
    assert [m["valid_loss"] for m in rest["history"]] == [m["valid_loss"] for m in whole["history"]]


def test_folds_of_a_preset(capsys, csv):
    result = run_json(capsys, "evaluate", "quick", "--ratings", csv, "--folds", 3)
    assert len(result["folds"]) == 3
    assert result["mse"] == pytest.approx(sum(fold["mse"] for fold in result["folds"]) / 3)


def test_views_of_the_shipped_model(capsys):
    similar = run_json(capsys, "similar", "star", "wars", "-k", 3)
    assert similar["query"] == {"movie_id": 50, "title": "Star Wars (1977)", "also": []}
    assert len(similar["movies"]) == 3
    assert {172, 181} <= {m["movie_id"] for m in similar["movies"]}
    assert run_json(capsys, "search", "godfahter", "-k", 1)[0]["title"] == "The Godfather (1972)"
    biases = run_json(capsys, "biases", "-k", 2, "--min-ratings", 100)
    assert len(biases["best"]) == len(biases["worst"]) == 2
    assert biases["best"][0]["bias"] > 0 > biases["worst"][0]["bias"]
    project = run_json(capsys, "project", "-k", 4, "--components", 2)
    assert len(project["movies"]) == 4
    assert len(project["explained_variance_ratio"]) == 2
    movies = run_json(capsys, "recommend", "--rate", "Star Wars=5", "--rate", "empire strikes back=5", "-k", 1)
    assert movies[0]["predicted"] > 4
    assert "ml-100k" in [model["name"] for model in run_json(capsys, "models")]


def test_tables_for_people(capsys):
    _, out, _ = run(capsys, "similar", "star wars", "-k", 1)
    assert out.splitlines()[0] == "Like Star Wars (1977)"
    assert out.splitlines()[2].split()[0] in {"172", "181"}  # the other two of the trilogy
    _, out, _ = run(capsys, "data")
    assert "ml-100k" in out
    assert "may not be redistributed" in out
    for command in ("project", "models"):
        assert run(capsys, command)[0] == 0


def test_of_two_movies_of_one_title_the_better_known_is_taken_and_said_so(capsys):
    _, out, err = run(capsys, "similar", "solaris", "-k", 1, "--model", "ml-latest-small")
    assert out.splitlines()[0] == "Like Solaris (2002)"
    assert err == ("There are 2 movies called 'solaris'; taken, as the most rated: Solaris (2002). Others: Solaris (Solyaris) (1972)\n")
    similar = run_json(capsys, "similar", "solaris", "-k", 1, "--model", "ml-latest-small")
    assert similar["query"] == {"movie_id": 5881, "title": "Solaris (2002)", "also": ["Solaris (Solyaris) (1972)"]}
    assert run(capsys, "similar", "solaris 1972", "-k", 1, "--model", "ml-latest-small")[2] == ""


def test_printed_commands_can_be_pasted_whatever_the_name(capsys, csv, tmp_path):
    out = f"{tmp_path}/my model"
    _, said, _ = run(capsys, "train", "--ratings", csv, "--preset", "quick", "--epochs", 1, "--out", out)
    assert shlex.split(said.splitlines()[-1].partition("See: ")[2]) == ["python", "-m", "cfrec", "biases", "--model", out]
    assert shlex.split(fails(capsys, "models", f"{tmp_path}/no models").partition("Train one: ")[2])[-1] == f"{tmp_path}/no models/NAME"


@pytest.mark.parametrize("folder", ["/proc/mine", "/proc/x/mine", "{csv}/mine"])
def test_a_folder_that_cannot_be_made_is_found_before_training(capsys, csv, folder, monkeypatch):
    """A lock in /proc, where nothing can be made, was waited for as if another program held it."""
    if folder.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("there is no /proc here")
    monkeypatch.setattr("cfrec.commands.train", lambda *_, **__: pytest.fail("trained"))
    assert "A model cannot be stored in mine: " in (said := fails(capsys, "train", "--ratings", csv, "--out", folder.format(csv=csv)))
    assert "choose another" in said.lower()


def test_the_usage_line_names_the_program_that_was_called(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/cfrec"])
    assert build_parser().format_usage().startswith("usage: cfrec [")


def test_export(capsys, tmp_path):
    paths = run_json(capsys, "export", "models/ml-100k", "--format", "projector", tmp_path)
    assert [Path(p).name for p in paths] == ["vectors.tsv", "metadata.tsv"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["similar", "zzzzqqqq"], "No title resembles"),
        (["similar", "star trek"], "could be: "),
        (["similar", "fargo", "--model", "nowhere"], "There is no model in nowhere"),
        (["train", "--ratings", "nowhere.csv"], "There is no file nowhere.csv"),
        (["train", "--epochs", "0"], "epochs must lie between 1 and 1000"),
        (["train", "--movies", "m.csv"], "--drop-bad-rows go with a file of your own"),
        (["train", "--drop-bad-rows"], "--drop-bad-rows go with a file of your own"),
        (["recommend", "--rate", "Fargo"], "should be TITLE=STARS"),
        (["recommend", "--rate", "Fargo=9"], "Stars must lie between 1 and 5"),
        (["data", "ml-5"], "no data set 'ml-5'"),
        (["evaluate", "nowhere", "--folds", "3"], "There is no model in nowhere"),
        (["project", "--components", "999"], "999 components"),
        (["models", "nowhere"], "There is no model in nowhere"),
        (["train", "--out", "tests"], "exists and is not a model"),
        (["train", "--resume", "models/ml-100k", "--preset", "quick"], "keeps its preset"),
        (["similar", "fargo", "--model", ""], "There is no model"),
    ],
)
def test_wrong_input_is_one_line_on_stderr_and_exit_code_2(capsys, argv, message):
    assert message in fails(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--valid-fraction", "0"], "held out must lie between 0 and 1"),
        (["--split-seed", "-1"], "seed of the split"),
        (["--resume", "models/ml-100k"], "without the state"),
    ],
)
def test_what_shows_only_beside_ratings_is_refused(capsys, csv, argv, message):
    assert message in fails(capsys, "train", "--ratings", csv, *argv)


@pytest.mark.parametrize(
    "argv", [[], ["fly"], ["train", "--epochs", "many"], ["export", "m", "x"], ["train", "--dataset", "ml-5"], ["similar", "x", "-k", "-1"]]
)
def test_wrong_arguments_are_one_line_too(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "--help" in err


def test_every_command_has_help(capsys):
    for command in build_parser()._subparsers._group_actions[0].choices:
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0
        assert "usage: python -m cfrec" in capsys.readouterr().out


def start_long_training(csv, out):
    command = [
        sys.executable,
        "-m",
        "cfrec",
        "train",
        "--ratings",
        str(csv),
        "--epochs",
        "1000",
        "--batch-size",
        "1",
        "--schedule",
        "constant",
        "--learning-rate",
        "0.003",
        "--out",
        str(out),
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "epoch 2/" not in process.stderr.readline():
        assert process.poll() is None
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_best_so_far(csv, tmp_path, number):
    process = start_long_training(csv, tmp_path / "m")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Stopping: the best so far is kept." in err
    result = json.loads(out)
    assert result["outcome"] == "stopped"
    model = load_model(tmp_path / "m")
    assert model.metrics["mse"] == pytest.approx(result["mse"])
    assert model.state is not None  # a stopped run can be resumed


def test_a_signal_that_comes_while_stderr_is_written_to_stops_all_the_same(capfd, monkeypatch):
    class Writing:
        def write(self, _):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr(sys, "stderr", Writing())
    with stop_on_interrupt() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
    assert "Stopping: the best so far is kept." in capfd.readouterr().err


def test_stopped_before_anything_was_learned_the_old_model_stays(capsys, csv, tmp_path, monkeypatch):
    out = tmp_path / "m"
    run_json(capsys, "train", "--ratings", csv, "--preset", "quick", "--epochs", 2, "--schedule", "constant", "--out", out)
    before = (out / "manifest.json").read_bytes()
    stopped = threading.Event()
    stopped.set()
    monkeypatch.setattr("cfrec.commands.stop_on_interrupt", lambda: nullcontext(stopped))
    message = fails(capsys, "train", "--ratings", csv, "--out", out)
    assert "Stopped before anything was learned." in message
    assert f"{out} is unchanged" in message
    assert (out / "manifest.json").read_bytes() == before


def test_the_shipped_model_is_found_from_anywhere(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in ([], ["--model", "models/ml-100k"], ["--model", "ml-latest-small"]):
        assert run_json(capsys, "search", "fargo", "-k", 1, *model)[0]["title"] == "Fargo (1996)"


def test_no_movie_found_is_said(capsys):
    assert "No movie found" in run(capsys, "biases", "--min-ratings", 9999)[1]
    assert "No movie found" in run(capsys, "search", "🎬")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [("search star > /dev/full", 2, 1), ("search 'les mis' -k 1", 0, 0)],
    ids=["a full disk", "a terminal without accents"],
)
def test_output_that_cannot_be_written_as_it_is(arguments, code, lines):
    command = f"PYTHONIOENCODING=ascii {sys.executable} -m cfrec {arguments}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, lines)
    assert code or "Les Mis?rables (1995)" in done.stdout


def test_a_model_of_one_s_own_ratings_asks_for_them(capsys, csv, tmp_path):
    run_json(capsys, "train", "--ratings", csv, "--preset", "quick", "--epochs", 2, "--out", tmp_path / "m")
    for argv in (["evaluate", tmp_path / "m"], ["evaluate", tmp_path / "m", "--folds", 2], ["train", "--resume", tmp_path / "m"]):
        assert "The model was trained on mine.csv (your own ratings). Name them: --ratings FILE" in fails(capsys, *argv)


def test_progress_that_nobody_reads_does_not_end_the_training(csv, tmp_path):
    command = (
        f"{sys.executable} -m cfrec train --ratings {csv} --preset quick --epochs 400 --out {tmp_path / 'm'} 2>&1 >/dev/null | head -n 1"
    )
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert len(load_model(tmp_path / "m").history) == 400


def test_a_reader_that_has_had_enough_is_no_error():
    command = f"{sys.executable} -m cfrec search the -k 1000 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_interrupted_while_it_loads(csv, tmp_path):
    code = (
        "import cfrec.commands as c\ndef f(a): raise KeyboardInterrupt\nc.models = f\n"
        "from cfrec.cli import main\nraise SystemExit(main(['models']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "cfrec: interrupted\n")


def test_showing_a_model_does_not_wait_for_torch():
    code = "import sys\nfrom cfrec.cli import main\nmain(['similar', 'fargo'])\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
