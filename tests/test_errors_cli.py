"""How errors leave the command line: an exit code and one sentence on stderr, never a traceback."""

import errno
import inspect
import os
import subprocess
import sys

import click
import pytest

import psarm.cli
from psarm import errors
from psarm.errors import MissingExtraError, PsarmError, UsageError


@pytest.fixture
def raising(monkeypatch):
    """Makes every psarm command raise what it is given."""

    def arrange(error):
        @click.command()
        def command():
            raise error

        monkeypatch.setattr(psarm.cli.LazyGroup, "get_command", lambda self, ctx, name: command)

    return arrange


def run(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = psarm.cli.run(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, PsarmError)]


def test_the_tree_of_errors():
    codes = {cls.__name__: cls.exit_code for cls in CLASSES}
    assert codes == {
        "PsarmError": 1,
        "UsageError": 2,
        "ConfigError": 2,
        "MissingExtraError": 2,
        "DataError": 1,
        "ImageError": 1,
        "CheckpointError": 1,
        "BundleError": 1,
        "StreamError": 1,
        "GalleryError": 1,
        "ExportError": 1,
        "TrainingError": 1,
    }
    for cls in CLASSES:
        assert cls.__name__ in errors.__doc__
    assert issubclass(errors.ConfigError, UsageError)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not MissingExtraError])
def test_our_errors_are_one_sentence_and_their_exit_code(cls, raising, capsys):
    raising(cls("The box is -3; needed a box inside the image."))
    code, out, err = run(capsys, "detect")
    assert code == cls.exit_code
    assert out == ""
    assert err == "Error: The box is -3; needed a box inside the image.\n"


def test_missing_extra(raising, capsys):
    raising(MissingExtraError("psarm train", "train", "torch is not installed"))
    code, out, err = run(capsys, "train")
    assert code == 2
    assert out == ""
    assert err == (
        "Error: psarm train needs the 'train' extra (torch is not installed); "
        "install it with: pip install 'psarm[train]'.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["--no-such-option"], ["doctor", "--no-such-option"], ["doctor", "too", "many"]],
)
def test_clicks_usage_errors(arguments, capsys):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert "Usage: psarm" in err
    assert err.strip().splitlines()[-1].startswith(("Error:", "│", "╰"))


@pytest.mark.parametrize(
    "error", [click.UsageError("Not so."), click.BadParameter("Not so."), click.ClickException("No.")]
)
def test_clicks_own_exceptions(error, raising, capsys):
    raising(error)
    code, out, err = run(capsys, "detect")
    assert code == error.exit_code
    assert out == ""
    assert "Error:" in err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["doctor", "--help"]])
def test_help_and_version(arguments, capsys):
    code, out, err = run(capsys, *arguments)
    assert code == 0
    assert out
    assert err == ""


def test_interrupted_with_what_to_do_next(raising, capsys):
    raising(KeyboardInterrupt("Run the same command with --resume to go on."))
    code, _, err = run(capsys, "train")
    assert code == 130
    assert err.strip() == "Interrupted. Run the same command with --resume to go on."


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted(error, raising, capsys):
    raising(error)
    code, _, err = run(capsys, "detect")
    assert code == 130
    assert err.strip() == "Interrupted."


@pytest.mark.parametrize(("file", "says"), [("/data/x.onnx", " while writing /data/x.onnx"), (None, "")])
def test_full_disk(file, says, raising, capsys):
    raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([file] if file else [])))
    code, out, err = run(capsys, "export")
    assert code == 1
    assert out == ""
    assert err.startswith(f"Error: the disk is full{says};")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x/y"), "No such file or directory: /x/y"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "Permission denied: /x/y"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "Read-only file system: /x/y"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("libfoo.so: cannot open\nmore"), "libfoo.so: cannot open"),
        (OSError(), "OSError"),
    ],
)
def test_other_errors_of_the_system_name_the_file(error, says, raising, capsys):
    raising(error)
    code, _, err = run(capsys, "detect")
    assert code == 1
    assert err == f"Error: {says}\n"


def test_a_used_up_quota(raising, capsys):
    raising(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/x/y"))
    code, _, err = run(capsys, "export")
    assert code == 1 and err.count("\n") == 1
    assert err.startswith("Error: your quota of disk space is used up while writing /x/y; nothing half-written")


@pytest.mark.parametrize(
    ("error", "detail"), [(MemoryError(), ""), (MemoryError("Unable to allocate 9 TiB"), " (Unable to allocate 9 TiB)")]
)
def test_memory_running_out(error, detail, raising, capsys):
    raising(error)
    code, _, err = run(capsys, "detect")
    assert code == 1
    assert err == f"Error: memory ran out{detail}; use smaller pictures or a smaller batch.\n"


def test_mistakes_of_ours_are_not_hidden(raising):
    raising(ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError):
        psarm.cli.run(["detect"])


def test_main_exits_with_the_code(raising):
    raising(UsageError("Not so."))
    with pytest.raises(SystemExit) as caught:
        psarm.cli.main(["detect"])
    assert caught.value.code == 2


def test_a_reader_that_goes_away():
    """`psarm ... | head -1` ends without a traceback."""
    read, write = os.pipe()
    os.close(read)
    code = "from psarm.cli import main; main(['--help'])"
    result = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert result.returncode == 1
    assert result.stderr == ""
