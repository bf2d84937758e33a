# SPDX-License-Identifier: Apache-2.0
"""Every wrong setting of the table in fixtures/settings/invalid gets exactly its errors, and bad
usage its own exit status. How a file of the table says what it expects: its README.md."""
import os
import pathlib

import pytest

from narwhal import REPOSITORY, run_narwhal

TABLE = pathlib.Path(REPOSITORY, "tests/fixtures/settings/invalid")
FILES = sorted(TABLE.glob("*.ini"))
EX_USAGE, EX_CONFIG = 64, 78


def expected_errors(path):
    errors = []
    for line in path.read_bytes().splitlines():
        if line.startswith(b"# expect: "):
            errors.append(line[len(b"# expect: "):].decode())
        elif line.startswith(b"#+ "):
            errors[-1] += " " + line[len(b"#+ "):].decode()
        else:
            break
    return [error.replace("{file}", str(path)).replace("{folder}", str(path.parent))
            for error in errors]


def test_the_table_has_at_least_60_rows():
    assert len(FILES) >= 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_check_config_tells_exactly_what_is_wrong(path):
    errors = expected_errors(path)
    assert errors, "the file says no expected error"
    status, out, err = run_narwhal("--config", path, "--check-config")
    assert status == EX_CONFIG, (status, out, err)
    assert out == ""
    assert err.splitlines()[:len(errors)] == errors
    # A closing line with the number of errors may follow; more errors may not.
    assert not [line for line in err.splitlines()[len(errors):] if str(path) + ":" in line], err


@pytest.mark.parametrize("path", FILES[:3], ids=lambda path: path.stem)
def test_start_refuses_the_same(path):
    status, out, err = run_narwhal("-c", path)
    assert status == EX_CONFIG and expected_errors(path)[0] in err, (status, out, err)


@pytest.mark.parametrize("arguments", [
    ["--no-such-flag"],
    ["--no-such-flag=3"],
    ["--workers"],
    ["--config"],
    ["-c"],
    ["surplus"],
    ["-x"],
    ["--workerz", "2"],
    ["--check-config=yes"],
    [""],
    ["--"  "=3"],
], ids=" ".join)
def test_bad_usage(arguments):
    status, out, err = run_narwhal(*arguments)
    assert status == EX_USAGE, (status, out, err)
    assert out == "" and err.strip(), "it says what is wrong, on standard error"


def test_bad_usage_names_the_nearest_flag():
    _, _, err = run_narwhal("--workerz", "2")
    assert "--workerz" in err and "--workers" in err


@pytest.mark.parametrize("arguments, words", [
    (["--workers", "0"], ["--workers", "1", "256"]),
    (["--workers", "many"], ["--workers", "many"]),
    (["--timeout", "30"], ["--timeout", "30"]),
    (["--bind", "nonsense"], ["--bind", "nonsense"]),
    (["--log-level", "loud"], ["loud", "debug"]),
    (["--static", "/no/such/folder"], ["/no/such/folder"]),
])
def test_bad_value_of_a_flag(arguments, words):
    status, out, err = run_narwhal("--check-config", *arguments)
    assert status == EX_CONFIG, (status, out, err)
    assert all(word in err for word in words), err


def test_bad_value_in_the_environment():
    status, out, err = run_narwhal("--check-config", env={"NARWHAL_WORKERS": "-3"})
    assert status == EX_CONFIG and "NARWHAL_WORKERS" in err, (status, out, err)


def test_unknown_name_in_the_environment():
    status, out, err = run_narwhal("--check-config", env={"NARWHAL_WORKERZ": "3"})
    assert status == EX_CONFIG and "NARWHAL_WORKERZ" in err and "NARWHAL_WORKERS" in err, (
        status, out, err)


def test_good_settings_are_said_to_be_good(tmp_path):
    path = tmp_path / "good.ini"
    path.write_text("[route:x]\npath = /\nrespond = 200 hello\n")
    status, out, err = run_narwhal("-c", path, "--check-config")
    assert status == 0, (out, err)
    assert not os.listdir(tmp_path / ".") == [], "nothing was made or removed"
