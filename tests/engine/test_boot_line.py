"""The Python that the boot line finds, in a real shell; the agent as it is sent."""

from __future__ import annotations

import ast
import json
import subprocess
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import boot

ECHO = '#!/bin/sh\necho "{name} $1 $2 $3"\n'


@pytest.mark.parametrize(
    ("there", "runs"),
    [(("python3", "platform-python"), "python3"), (("platform-python",), "platform-python")],
)
def test_the_platforms_python_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], runs: str
) -> None:
    for name in there:
        (tmp_path / name).write_text(ECHO.format(name=name))
        (tmp_path / name).chmod(0o755)
    platform = str(tmp_path / "platform-python")
    monkeypatch.setattr(boot, "_FIND", boot._FIND.replace(boot._PLATFORM, platform))
    done = run(boot.boot_command(python="python3", sudo=False, prompt="", ask_password=False), tmp_path)
    assert done.stdout.split()[0].endswith(runs)
    assert done.stdout.split()[1:] == ["-I", "-S", "-c"]


def test_a_host_without_any_names_python3(tmp_path: Path) -> None:
    done = run(boot.boot_command(python="python3", sudo=False, prompt="", ask_password=False), tmp_path)
    assert "python3" in done.stderr
    assert "not found" in done.stderr


def test_a_given_python_is_taken_as_it_is() -> None:
    line = boot.boot_command(python="/opt/python", sudo=False, prompt="", ask_password=False)
    assert line.startswith("/opt/python -I -S -c ")


def test_the_agent_is_sent_without_its_docstrings_and_with_its_lines() -> None:
    size, packed = boot.agent_payload().split(b"\n", 1)
    assert len(packed) == int(size)
    sent = {name: text for name, text in json.loads(zlib.decompress(packed)) if name != "agent"}
    sources = {f"agent.{name}": text for name, text in boot.agent_modules().items()}
    assert [*sent] == [*sources]
    assert {name: statements(text) for name, text in sent.items()} == {
        name: statements(text) for name, text in sources.items()
    }
    assert not any(ast.get_docstring(ast.parse(text)) for text in sent.values())


def statements(source: str) -> list[tuple[int, str]]:
    """Return each statement that is no constant, with its line; of a compound one its line only."""
    return [
        (node.lineno, "" if hasattr(node, "body") else ast.dump(node))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def run(line: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a boot line with the programs of this folder only."""
    env = {"PATH": f"{path}:{shells(path)}"}
    return subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, text=True, check=False)


def shells(path: Path) -> Path:
    """Return a folder with nothing but a shell."""
    folder = path / "shells"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    return folder


def test_sessions_that_begin_at_once_make_the_payload_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads in `ast.parse` may end with a SystemError of Python 3.11."""
    calls: list[str] = []

    def modules() -> dict[str, str]:
        calls.append("made")
        time.sleep(0.02)
        return {"main": "pass\n"}

    monkeypatch.setattr(boot, "agent_modules", modules)
    boot._made_payload.cache_clear()
    try:
        with ThreadPoolExecutor(4) as pool:
            assert len({*pool.map(lambda _: boot.agent_payload(), range(4))}) == 1
    finally:
        boot._made_payload.cache_clear()
    assert calls == ["made"]
