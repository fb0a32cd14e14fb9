"""The control server: headscale as its Debian package lays it out, with somebody else's region already in its map."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.host import Host
from lab.process import wait_for

PORT = 8080
USER = "lab"
TEMPLATES = Path(__file__).parent / "templates" / "headscale"


@dataclass(frozen=True)
class Headscale:
    """headscale on `host`."""

    host: Host

    @property
    def url(self) -> str:
        """Its server_url."""
        return f"http://{self.host.spec.domain}:{PORT}"

    def lay_out(self, binary: Path) -> None:
        """Put program, configuration and unit into the host's file system, before it boots."""
        self.host.lay({"usr/bin/headscale": binary.read_bytes()}, mode=0o755)
        config = (TEMPLATES / "config.yaml").read_text().replace("http://127.0.0.1:8080", self.url)
        derp_map, unit = ((TEMPLATES / name).read_text() for name in ("derp.yaml", "headscale.service"))
        files = {"etc/headscale/config.yaml": config, "etc/headscale/derp.yaml": derp_map, "etc/systemd/system/headscale.service": unit}
        self.host.lay(files)

    def start(self) -> None:
        """Start it, wait until it answers, and make the user that the clients belong to."""
        home = ["--home-dir", "/var/lib/headscale", "--create-home", "--shell", "/usr/sbin/nologin"]
        self.host.run(["useradd", "--system", "--user-group", *home, "headscale"])
        self.host.run(["systemctl", "enable", "--quiet", "--now", "headscale"])
        health = ["curl", "--silent", "--fail", "--max-time", "1", f"http://127.0.0.1:{PORT}/health"]
        wait_for(
            lambda: self.host.run(health, check=False).returncode == 0, timeout_s=20,
            what="headscale did not come up", why=lambda: self.host.run(["journalctl", "-u", "headscale", "-n", "5", "-o", "cat"]).stdout,
        )  # fmt: skip
        self.command("users", "create", USER)

    def command(self, *arguments: str) -> str:
        """What `headscale ARGUMENTS --output json` prints. Raises LabError."""
        return self.host.run(["headscale", *arguments, "--output", "json"]).stdout

    def preauth_key(self) -> str:
        """A key that lets one client in. It forgets the client when that one goes."""
        users = json.loads(self.command("users", "list", "--name", USER))
        made = json.loads(self.command("preauthkeys", "create", "--user", str(users[0]["id"]), "--ephemeral", "--expiration", "1h"))
        return str(made["key"])

    def regions(self) -> dict[str, object]:
        """The regions that it serves now, by their number as text, as its debug page tells them (region_id, region_name, nodes …)."""
        page = ["curl", "--silent", "--fail", "--max-time", "2", "-H", "Accept: application/json", "http://127.0.0.1:9090/debug/derp"]
        found: dict[str, object] = json.loads(self.host.run(page).stdout)["regions"]
        return found
