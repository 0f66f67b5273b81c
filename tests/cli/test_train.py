"""`psarm train` as a user meets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from errno import ENOSPC
from pathlib import Path

import pytest
from tiny_prw import write_tiny_prw

from psarm.cli import run
from psarm.training.report import Report

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs" / "tiny.yaml")


@pytest.fixture(scope="module")
def prw(tmp_path_factory):
    return write_tiny_prw(tmp_path_factory.mktemp("train") / "prw")


@pytest.fixture
def train(prw, tmp_path, capfd):
    """Runs `psarm train` for one epoch into tmp_path/run; gives exit code, stdout and stderr."""

    def call(*arguments, root=prw, epochs=1):
        fixed = ["train", "--config", CONFIG, "--data-root", str(root), "--output", str(tmp_path / "run")]
        code = run([*fixed, "-o", f"train.epochs={epochs}", "-o", "train.warmup_epochs=0.0", *arguments])
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, " ".join(printed.err.split())

    return call


def test_trains_and_says_what_next(train, tmp_path):
    code, out, err = train(epochs=2)
    run_folder = tmp_path / "run"
    assert code == 0, err
    for word in ("Trained 2 epochs", "detection_reg", "oim", "search", "mAP", "top-10", "Detection: AP"):
        assert word in out
    assert f"Next: psarm export {run_folder / 'model.safetensors'} --out" in out
    assert "psarm on resnet18" in err and "epoch 1/2 total" in err and "epoch 2/2 total" in err
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "last.pt",
        "metrics.json",
        "model.safetensors",
        "tensorboard",
    ]


def test_json(train, tmp_path):
    code, out, _ = train("--json")
    result = json.loads(out)
    assert code == 0 and result["epochs"] == 1
    assert result["checkpoint"] == str(tmp_path / "run" / "model.safetensors")
    assert result["metrics"] == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert result["evaluated"] == result["checkpoint"] and result["validation"] == []
    assert result["losses"].keys() >= {"total", "rpn_cls", "oim"}


def test_validation_is_shown_and_the_best_checkpoint_is_evaluated_again(train, tmp_path):
    root, run_folder = write_tiny_prw(tmp_path / "prw", train=12), tmp_path / "run"
    best = run_folder / "best.safetensors"
    code, out, err = train("-o", "data.validation=0.34", root=root, epochs=2)
    assert code == 0 and err.count("validation after epoch") == 2
    assert "Validation, %" in out and f"Evaluated: {best}" in out and f"Next: psarm export {best} --out" in out
    kept = (run_folder / "metrics.json").read_bytes()
    (run_folder / "metrics.json").unlink()
    code, out, _ = train("--eval-only", "--json", root=root)
    assert code == 0 and json.loads(out) == {"evaluated": str(best), "metrics": json.loads(kept)}
    assert (run_folder / "metrics.json").read_bytes() == kept
    code, out, _ = train("--eval-only", root=root)
    assert code == 0 and f"Evaluated: {best}" in out and "Trained" not in out


def test_a_skipped_image_is_named_once(train, prw, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(prw, root)
    image = root / "frames" / "c1s1_000000.jpg"
    image.write_bytes(image.read_bytes()[:-3000])
    code, _, err = train("-o", "data.bad_images=skip", "-o", "train.evaluate=false", root=root, epochs=2)
    assert code == 0 and err.count(f"Skipped a training frame: Cannot read {image}") == 1


def test_a_damaged_test_image_leaves_the_checkpoint(train, prw, tmp_path):
    root, checkpoint = tmp_path / "broken", tmp_path / "run" / "model.safetensors"
    shutil.copytree(prw, root)
    image = sorted((root / "frames").iterdir())[-1]
    content = image.read_bytes()
    image.write_bytes(content[:-3000])
    code, out, err = train(root=root)
    assert (code, out) == (1, "") and f"Cannot read {image}" in err
    assert err.endswith(f"{checkpoint} is written; psarm train --eval-only evaluates it.") and checkpoint.exists()
    image.write_bytes(content)
    assert train("--eval-only", root=root)[0] == 0


def test_memory_that_runs_out_is_one_sentence(train, tmp_path, monkeypatch):
    from psarm.model.person_search import PersonSearchModel

    def losses(*_):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr(PersonSearchModel, "losses", losses)
    code, out, err = train()
    assert (code, out) == (1, "") and "Error: Memory ran out with train.batch_size 2 and images of up to 96x160" in err


def test_a_used_folder_needs_resume_or_overwrite(train):
    assert train()[0] == 0
    code, _, err = train()
    assert code == 2 and "already holds a training; give --resume to go on with it, --overwrite" in err
    code, _, err = train("--resume", "--overwrite")
    assert code == 2 and "give one of them" in err
    code, _, err = train("--resume", "-o", "model.width=0.5")
    assert code == 2 and "Cannot resume" in err and "model.width: 0.25 → 0.5" in err
    code, _, err = train("--resume", epochs=2)
    assert code == 2 and "other settings (train.epochs: 1 → 2)" in err and "--allow-changes to go on" in err
    code, out, _ = train("--resume", "--allow-changes", "-o", "train.evaluate=false", epochs=2)
    assert code == 0 and "Trained 2 epochs" in out and "mAP" not in out
    assert train("--overwrite", "-o", "train.evaluate=false")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "train.epoch=1"], "train has no key 'epoch'; did you mean train.epochs?"),
        (["-o", "train.epochs"], "not of the form group.key=value"),
        (["-o", "train.lr=fast"], "train.lr is 'fast'"),
        (["-o", "train.batch_size=9"], "train.batch_size is 9; needed at most the 4 training frames"),
        (["-o", "train.amp=fp16"], "train.amp is fp16, which needs a GPU"),
        (["-o", "train.init=imagenet"], "ImageNet weights need width 1"),
        (["--resume"], "There is no training to resume in"),
        (["--allow-changes"], "--allow-changes is about a training to go on with; give it with --resume."),
        (["--eval-only"], "There is no checkpoint to evaluate in"),
        (
            ["--eval-only", "--resume"],
            "--eval-only trains nothing; give it without --resume, --allow-changes and --overwrite.",
        ),
        (["--eval-only", "--allow-changes"], "--eval-only trains nothing; give it without --resume, --allow-changes"),
        (["--eval-only", "--overwrite"], "--eval-only trains nothing"),
        (["--config", "missing.yaml"], "no configuration file and no preset missing.yaml; `psarm models` lists"),
        (["--config", "psarm_pwr"], "no configuration file and no preset psarm_pwr; did you mean psarm_prw or"),
        (["--config", "."], "Cannot read the configuration file .: Is a directory."),
        (["--data-root", "missing"], "data.root missing does not exist; give the folder"),
        (
            ["--data-root", ""],
            "data.root is empty; give the folder of the data set with --data-root; `psarm data synth DIR --format prw`",
        ),
        (["-o", "data.dataset=cuhk-sysu", "--data-root", "missing"], "`psarm data synth DIR --format cuhk-sysu` makes"),
        (["-o", "data.dataset=visits", "--data-root", ""], "`psarm data convert` makes one of videos or pictures."),
    ],
)
def test_what_cannot_work_is_one_sentence_and_writes_nothing(train, tmp_path, arguments, sentence):
    code, out, err = train(*arguments)
    assert code == 2 and out == "" and err.startswith("Error: ") and sentence in err
    assert not (tmp_path / "run").exists()


def test_output_is_a_file(train, tmp_path):
    (tmp_path / "run").write_text("mine")
    code, _, err = train()
    assert code == 2 and f"{tmp_path / 'run'} is a file; give a folder as --output" in err


def test_a_folder_that_is_no_data_set(train, tmp_path):
    code, _, err = train(root=tmp_path)
    assert code == 1 and "is not a PRW data set" in err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(train, prw, tmp_path, workers):
    root = tmp_path / "broken"
    shutil.copytree(prw, root)
    image = root / "frames" / "c1s1_000000.jpg"
    image.write_bytes(image.read_bytes()[:30])
    code, _, err = train("-o", f"data.workers={workers}", root=root)
    assert code == 1
    assert f"Error: Cannot read {image} (the image is cut off: the JPEG has no end marker); psarm data check" in err


def test_a_damaged_state(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").write_bytes(b"PK\x03\x04 cut")
    code, _, err = train("--resume")
    assert code == 1 and "last.pt is not a training state" in err and "--overwrite" in err


def test_divergence_is_one_sentence(train):
    code, _, err = train("-o", "train.lr=1e30", "-o", "train.clip_norm=1e30", epochs=3)
    assert code == 1 and "Error: Training diverged in epoch 1, iteration 2: " in err and "is nan" in err


def test_a_full_disk_leaves_the_last_checkpoint(train, tmp_path, monkeypatch):
    assert train("-o", "train.evaluate=false")[0] == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    written = Path.write_bytes

    def half(path, content):
        written(path, bytes(content)[:1000])
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        code, _, err = train("--resume", "--allow-changes", epochs=2)
    assert code == 1 and "Error: the disk is full" in err
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == kept
    assert train("--resume", "--allow-changes", "-o", "train.evaluate=false", epochs=2)[0] == 0


def test_a_full_disk_at_the_first_checkpoint_leaves_nothing_in_the_way(train, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        code, _, err = train("-o", "train.evaluate=false")
    assert code == 1 and "Error: the disk is full" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["tensorboard"]
    assert train("-o", "train.evaluate=false")[0] == 0


def test_interrupted_before_and_after_the_first_checkpoint(train, tmp_path, monkeypatch):
    shown = Report.iteration

    def stop_at(wanted):
        def iteration(report, number, *rest):
            shown(report, number, *rest)
            if number == wanted:
                raise KeyboardInterrupt

        return iteration

    monkeypatch.setattr(Report, "iteration", stop_at(1))
    code, out, err = train()
    assert (code, out) == (130, "") and "Interrupted. No epoch was finished, so there is nothing to resume" in err
    monkeypatch.setattr(Report, "iteration", stop_at(2))
    code, _, err = train(epochs=2)
    assert code == 130
    assert f"Every finished epoch is in {tmp_path / 'run'}; run the same command with --resume to go on." in err
    code, _, err = train("--overwrite", epochs=2)
    assert code == 130 and "with --resume in place of --overwrite" in err
    monkeypatch.setattr(Report, "iteration", shown)
    assert train("--resume", "-o", "train.evaluate=false", epochs=2)[0] == 0


def test_interrupted_in_the_evaluation(train, tmp_path, monkeypatch):
    from psarm.training import final

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(final, "evaluate", interrupted)
    code, out, err = train()
    checkpoint = tmp_path / "run" / "model.safetensors"
    assert (code, out) == (130, "") and checkpoint.exists()
    left = f"Interrupted. {checkpoint} is written; only its evaluation was left. Run the same command"
    assert err.endswith(f"{left} with --eval-only to make it.")
    for flag in ("--resume", "--overwrite"):
        code, _, err = train(flag)
        assert code == 130 and err.endswith(f"{left} with --eval-only in place of {flag} to make it.")
    code, _, err = train("--eval-only")
    assert code == 130 and err == f"{left} again to evaluate it."
    assert not (tmp_path / "run" / "metrics.json").exists()


def stopped_after_the_first_epoch(prw, output, number, *, group):
    """Exit code and last line of a training that got a signal: it alone, or with its process group as in a terminal."""
    arguments = ["train", "--config", CONFIG, "--data-root", str(prw), "--output", str(output)]
    for setting in ("train.epochs=9999", "data.workers=1", "train.threads=1"):
        arguments += ["-o", setting]
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stderr:
            if line.startswith("epoch 1/"):
                break
        if group:
            os.killpg(process.pid, number)  # its own group: start_new_session made it
        else:
            process.send_signal(number)
        rest = process.stderr.read()
    assert "Traceback" not in rest
    return process.returncode, rest.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True)],
    ids=["Ctrl-C", "kill", "scheduler"],
)
def test_a_signal_says_how_to_go_on(prw, tmp_path, number, group):
    """Ctrl-C reaches the whole process group, decoding processes included; a scheduler may do either."""
    code, last = stopped_after_the_first_epoch(prw, tmp_path / "run", number, group=group)
    assert code == 130
    assert last.startswith(f"Interrupted. Every finished epoch is in {tmp_path / 'run'}; run the same command with")
