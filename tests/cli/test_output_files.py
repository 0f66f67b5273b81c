"""What a command's output may take the place of."""

import os

import pytest

from psarm import cli
from psarm.cli.output_files import check_jpeg, check_page
from psarm.errors import UsageError


@pytest.mark.parametrize("text", ["", "<!DOCTYPE html>", "<!doctype HTML>", "\ufeff\n<HTML lang=en>"])
def test_a_page_takes_the_place_of_a_page(tmp_path, text):
    page = tmp_path / "page.html"
    check_page("--html", page)
    page.write_text(text, encoding="utf-8")
    check_page("--html", page)
    check_page("--html", None)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0", b"\0\0\0\x18ftyp", b"{}", b"text <html>"])
def test_a_page_takes_the_place_of_nothing_else(tmp_path, content):
    file = tmp_path / "page.html"
    file.write_bytes(content)
    link = tmp_path / "link.html"
    link.symlink_to(file)
    for target in (file, link):
        with pytest.raises(UsageError, match=rf"{target.name} would be overwritten by --html and is not a page; give"):
            check_page("--html", target)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="would be overwritten"):  # and is not waited for
        check_page("--html", tmp_path / "pipe")


def test_a_jpeg_takes_the_place_of_a_jpeg(tmp_path):
    picture = tmp_path / "people.jpg"
    check_jpeg("--save-people", picture)
    picture.write_bytes(b"\xff\xd8\xff\xe0")
    check_jpeg("--save-people", picture)
    picture.write_bytes(b"\x89PNG")
    with pytest.raises(UsageError, match="would be overwritten by --save-people and is not a JPEG"):
        check_jpeg("--save-people", picture)


@pytest.mark.parametrize(
    "line",
    [
        "bench {folder} --data-root {folder} --html {place}",
        "data synth {place}",
        "detect {folder} {folder} --save {place}",
        "export {file} --out {place}",
        "search {folder} {folder} --query {file} --html {place}",
        "train --config psarm_prw --data-root {folder} --output {place}",
    ],
)
@pytest.mark.parametrize("place", ["/proc/out", "{file}/out"])  # not even root writes to the first
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, capsys, line, place):
    file = tmp_path / "file"
    file.touch()
    place = place.format(file=file)
    assert cli.run(line.format(file=file, folder=tmp_path, place=place).split()) == 2
    message = capsys.readouterr().err
    assert f"{place} cannot be written: " in message and "give another place." in message
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
