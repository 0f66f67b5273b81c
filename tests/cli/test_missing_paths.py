"""A path that is not there is a usage error, exit code 2, wherever it stands; it is named in one sentence."""

import pytest

from psarm import cli

# `{none}` is not there; `{folder}` and `{file}` are.
COMMANDS = [
    "bench --compare {none} {file}",
    "bench --compare {file} {none}",
    "bench --data-root {none} {folder}",
    "bench --data-root {folder} {none}",
    "bench --data-root {folder} --checkpoint {none}",
    "bench --data-root {folder} --detections {none}",
    "bench --data-root {folder} --suite paper --out {folder} --checkpoint {none}",
    "bench --data-root {folder} --suite paper --out {folder} --checkpoint name={none}",
    "convert {none} {folder}/out.safetensors",
    "data check {none}",
    "data convert {folder}/out --from mot --labels {none}",
    "data convert {folder}/out --from mot --video {none}",
    "data convert {folder}/out --from mot --people {none}",
    "data convert {folder}/out --from coco --labels {file} --images {none}",
    "detect {none} {folder}",
    "detect {folder} {none}",
    "detect {folder} {file} {none}",
    "doctor {none}",
    "engines {none}",
    "export {none} --out {folder}/out",
    "export {file} --out {folder}/out --calibrate {none}",
    "export {file} --out {folder}/out --data-root {none}",
    "gallery info {none}",
    "gallery sources {none}",
    "gallery export {none} {folder}/out.parquet --format parquet",
    "gallery calibrate {none}",
    "gallery compact {none}",
    "gallery index {none}",
    "gallery purge {none} --older-than 1d --yes",
    "gallery delete-source {none} NAME --yes",
    "gallery delete-visit {none} 1 --yes",
    "gallery audit {none}",
    "gallery audit {folder} --audit-log {none}",
    "index {none} {file} --gallery {folder}/gallery",
    "search {none} {folder} --query {file}",
    "search {folder} {none} --query {file}",
    "search {folder} {file} --query {none}",
    "search --gallery {none} --query {file}",
    "search --gallery {folder} --query {none}",
    "train --config {none}",
    "train --config psarm_prw --data-root {none} --output {folder}/run",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_path_that_is_not_there_is_a_usage_error(line, tmp_path, capsys):
    file = tmp_path / "file.jpg"
    file.write_bytes(b"")
    none = tmp_path / "none.mp4"
    assert cli.run(line.format(none=none, folder=tmp_path, file=file).split()) == 2
    message = capsys.readouterr().err
    assert "none.mp4" in message and "Traceback" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.jpg"]
