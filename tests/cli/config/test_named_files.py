"""`esockd check` and the files that a configuration names: missing ones, pipes, passwords and modules."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.cli.running import LIMIT_S, run_esockd

from esockd_cli.config.problems import BadConfig
from esockd_cli.config.source import parse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.config.conftest import Check
    from tests.conftest import RequireTool

ECHO = '[listeners.echo]\nhandler = "echo"\nlisten = 0\n'


def test_a_file_that_is_missing_or_a_folder_says_so(tmp_path: Path) -> None:
    missing = "error: no.toml: no such file or directory. Write one: esockd config example > no.toml\n"
    assert run_esockd("check", "no.toml", cwd=tmp_path) == (1, "", missing)
    assert run_esockd("check", ".", cwd=tmp_path) == (1, "", "error: .: is a directory. Name the file in it.\n")


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, command: str) -> None:
    os.mkfifo(tmp_path / "edge.toml")
    status, out, err = run_esockd(command, "edge.toml", cwd=tmp_path)
    assert status != 0
    assert (out, err) == ("", "error: edge.toml: it is a pipe or a device, not a file.\n")


def test_no_file_that_a_configuration_names_is_waited_for(check: Check, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    static = ECHO.replace('"echo"', '"static:@pipe"')
    status, _, err = check(static)
    assert (status, "it is a pipe or a device, not a file." in err) == (1, True), err
    upstream = ECHO.replace('"echo"', '"forward:tls://127.0.0.1:1"') + 'upstream_ca = "pipe"\n'
    status, _, err = check(upstream)
    assert (status, "pipe" in err) == (1, True), err


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edge.toml").symlink_to("edge.toml")
    problem = "error: edge.toml: too many levels of symbolic links.\n"
    assert run_esockd("check", "edge.toml", cwd=tmp_path) == (1, "", problem)

    def refuse(path: str, max_bytes: int) -> None:  # root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("esockd_cli.config.source.read_regular_file", refuse)
    with pytest.raises(BadConfig, match=r"edge\.toml: permission denied\."):
        parse(str(tmp_path / "edge.toml"))


SECRET = "correct-horse-battery"


def test_a_password_comes_from_a_file_or_the_environment_and_is_never_shown(
    check: Check, tmp_path: Path, require_tool: RequireTool
) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "plain.pem").write_bytes(certificate.private_key_pem.bytes())
    openssl = require_tool("openssl")
    encrypt = [openssl, "pkey", "-in", "plain.pem", "-aes256", "-passout", f"pass:{SECRET}", "-out", "key.pem"]
    subprocess.run(encrypt, cwd=tmp_path, check=True, capture_output=True, timeout=LIMIT_S)
    (tmp_path / "password").write_text(f"{SECRET}\n")
    text = '[listeners.echo]\nhandler = "echo"\nlisten = "tls://127.0.0.1:0"\ncert = "cert.pem"\nkey = "key.pem"\n'
    assert check(f'{text}key_password_file = "password"\n').status == 0
    assert check(f'{text}key_password_env = "EDGE"\n', EDGE=SECRET).status == 0
    assert check(text, ESOCKD_KEY_PASSWORD=SECRET).status == 0
    answers = [
        check(f'{text}key_password = "{SECRET}"\n', "-v"),
        check(f'{text}tls_options.password = "{SECRET}"\n', "--json", "-v"),
        check(f'{text}key_password_env = "EDGE"\n', "-v", EDGE=f"not {SECRET}"),
        check(f'{text}key_password_env = "EDGE"\n', "-v"),
        check(f'{text}key_password_file = "none"\n', "-v"),
        check(text, "-v"),
    ]
    assert [answer.status for answer in answers] == [1] * len(answers)
    assert SECRET not in str(answers)
    assert answers[0].err == (
        'error: edge.toml:6: unknown key "key_password". '
        "Name the file of the password with key_password_file, or its variable with key_password_env.\n"
    )
    assert answers[3].err == "error: edge.toml:6: key_password_env: the environment has no EDGE.\n"


def test_a_handler_that_cannot_be_imported_is_named_with_its_line(check: Check, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import nothing_like_this\n")
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "here.py").write_text("async def handle(connection): ...\n")
    text = '[listeners.a]\nlisten = 0\nhandler = "app:handle"\n'
    problem = "error: edge.toml:3: cannot import \"app:handle\": app.py line 1: No module named 'nothing_like_this'\n"
    assert check(text) == (1, "", problem)
    assert check('[esockd]\napp_dir = "apps"\n' + text.replace("app:", "here:")).status == 0


def test_files_are_found_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hello.txt").write_text("hello")
    text = ECHO.replace('"echo"', '"static:@hello.txt"') + 'refuse_with = "static:@hello.txt"\n'
    (tmp_path / "etc" / "edge.toml").write_text(text)
    assert run_esockd("check", "etc/edge.toml", cwd=tmp_path).status == 0
    (tmp_path / "etc" / "hello.txt").unlink()
    assert [line.split(": ")[1] for line in run_esockd("check", "etc/edge.toml", cwd=tmp_path).err.splitlines()] == [
        "etc/edge.toml:4"
    ]
