"""A command that must fail, as a user sees it."""

from psarm.cli import run


def failing(capfd, *arguments, code=1, out=""):
    """Run psarm in this process; returns the sentence it ends with.

    `out` is what may stand on stdout, None for anything.
    """
    got = run([str(argument) for argument in arguments])
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    assert got == code, printed.err
    assert out is None or printed.out == out
    last = printed.err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last
