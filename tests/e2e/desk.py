"""The verbs as an operator types them, in a lab."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import lab
from tests.support import verbs
from tests.support.verbs import CHECKOUT


@dataclass(frozen=True)
class Ran:
    """One verb that ran. `events` are its JSON lines."""

    code: int
    events: list[dict[str, Any]]
    errors: str

    def of(self, kind: str, host: str = "") -> list[dict[str, Any]]:
        return [
            event
            for event in self.events
            if event.get("event") == kind and (not host or event.get("host") == host)
        ]

    def counts(self, host: str) -> dict[str, int]:
        return dict(self.of("done", host)[-1]["counts"])

    def changed(self, host: str) -> list[str]:
        return [event["id"] for event in self.of("result", host) if event["status"] == "changed"]

    def proof(self, host: str) -> dict[str, Any]:
        return self.of("proof", host)[-1]

    def failure(self) -> dict[str, Any]:
        return self.of("failure")[-1]

    def why(self) -> list[Any]:
        """Return failures, broken rungs and error output, for an assertion's message."""
        broken = [rung for proof in self.of("proof") for rung in proof["rungs"] if rung["status"] == "failed"]
        return [*self.of("failure"), *broken, self.errors[-2000:]]


@dataclass(frozen=True)
class Desk:
    """An operator's place: the lab's site file, and the verbs of a checkout."""

    stage: lab.Lab
    checkout: Path = CHECKOUT

    def invoke(self, *words: str, timeout_s: float = 300, env: Mapping[str, str] | None = None) -> Ran:
        """Run `invoke WORDS --json` in the lab's network."""
        done = self.run(*words, "--json", timeout_s=timeout_s, env=env)
        return Ran(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)

    def run(
        self, *words: str, timeout_s: float = 300, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `invoke WORDS` in the lab's network; its output is text."""
        words = (*words, "--site", str(self.stage.site_file))
        if self.checkout == CHECKOUT:
            return verbs.run(self.stage, words, timeout_s=timeout_s, environment=env or {})
        return subprocess.run(
            [str(self.stage.root / "enter"), str(verbs.INVOKE), *words],
            cwd=self.checkout,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(env or {})},
        )

    def edit(self, host: str, **settings: Any) -> None:
        """Change a host's settings in the site file; None removes one."""
        site = yaml.safe_load(self.stage.site_file.read_text())
        for key, value in settings.items():
            site["hosts"][host].pop(key, None) if value is None else site["hosts"][host].update({key: value})
        self.stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))

    def listening(self, host: str) -> set[str]:
        """Return the sockets that listen on other addresses than loopback, such as `tcp/443`."""
        lines = self.stage.run_in(
            host, ["ss", "--no-header", "--listening", "--tcp", "--udp", "--numeric"]
        ).stdout.splitlines()
        pairs = [(parts[0], parts[4]) for parts in map(str.split, lines)]
        return {
            f"{proto}/{address.rpartition(':')[2]}"
            for proto, address in pairs
            if not address.startswith(("127.", "[::1]"))
        }
