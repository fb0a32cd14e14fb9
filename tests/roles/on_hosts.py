"""Hosts of a lab that test_on_hosts.py drives: other programs, settings and questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from tests.e2e.desk import Desk, Ran


def run(desk: Desk, host: str, *argv: str, check: bool = True) -> str:
    return desk.stage.run_in(host, ["env", "-C", "/", *argv], check=check, timeout_s=300).stdout


@contextmanager
def program(desk: Desk, host: str, name: str, *argv: str) -> Iterator[None]:
    """Run another program on the host."""
    run(desk, host, "systemd-run", "--quiet", f"--unit={name}", *argv)
    try:
        yield
    finally:
        run(desk, host, "systemctl", "stop", name)


def listener(kind: str, port: int) -> tuple[str, ...]:
    listen = "s.listen(); " if kind == "STREAM" else ""
    bound = f"s = socket.socket(type=socket.SOCK_{kind}); s.bind(('', {port}))"
    script = f"import socket, time; {bound}; {listen}time.sleep(999)"
    return ("python3", "-c", script)


def reasons(ran: Ran) -> str:
    assert ran.code == 1, ran.why()
    return str(ran.failure()["why"])


def site(
    desk: Desk,
    host: str,
    settings: dict[str, Any],
    *,
    keep: tuple[str, ...] = ("domain", "ipv4", "ipv6", "region"),
) -> None:
    """Give the host these settings. Its name, addresses and region stay."""
    document = yaml.safe_load(desk.stage.site_file.read_text())
    document["hosts"][host] = {
        key: value for key, value in document["hosts"][host].items() if key in keep
    } | settings
    desk.stage.site_file.write_text(yaml.safe_dump(document, sort_keys=False))


def ask(desk: Desk, url: str, *words: str) -> str:
    return desk.stage.run_in(
        "controller", ["curl", "--silent", "--insecure", "--max-time", "5", *words, url], check=False
    ).stdout
