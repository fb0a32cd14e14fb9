"""The control server: headscale as its Debian package lays it out, with another operator's region
in its map."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.certificates import make_server_certificate
from lab.files import write_tree
from lab.host import LabHost
from lab.process import wait_for

PORT = 8080
USER = "lab"
TEMPLATES = Path(__file__).parent / "templates" / "headscale"


@dataclass(frozen=True)
class LabHeadscale:
    """headscale on `host`. `folder` holds the files of its https."""

    host: LabHost
    folder: Path

    @property
    def url(self) -> str:
        """Its server_url, with https.

        A client that has lost a plain http server insists on port 443 for two minutes after each
        attempt, so it never returns to the plain one.
        """
        return f"https://{self.host.spec.domain}:{PORT}"

    @property
    def ca(self) -> Path:
        """The root that verifies its https."""
        return self.folder / "ca.pem"

    def make_certificate(self) -> None:
        """Make the files of its https."""
        authority, certificate, key = make_server_certificate(
            self.host.spec.domain, self.host.topology.ipv4(self.host.name)
        )
        write_tree(self.folder, {"ca.pem": authority, "server.pem": certificate})
        write_tree(self.folder, {"server.key": key}, mode=0o600)

    def lay_out(self, binary: Path) -> None:
        """Put program, configuration and unit into the host's file system, before it boots."""
        self.host.lay({"usr/bin/headscale": binary.read_bytes()}, mode=0o755)
        config = (TEMPLATES / "config.yaml").read_text().replace("https://127.0.0.1:8080", self.url)
        derp_map, unit = ((TEMPLATES / name).read_text() for name in ("derp.yaml", "headscale.service"))
        files = {
            "etc/headscale/config.yaml": config,
            "etc/headscale/derp.yaml": derp_map,
            "etc/systemd/system/headscale.service": unit,
        }
        self.host.lay(files | {"etc/headscale/tls.pem": (self.folder / "server.pem").read_text()})
        self.host.lay({"etc/headscale/tls.key": (self.folder / "server.key").read_text()}, mode=0o600)

    def start(self) -> None:
        """Start it, wait until it answers, and make the user that the clients belong to."""
        home = ["--home-dir", "/var/lib/headscale", "--create-home", "--shell", "/usr/sbin/nologin"]
        self.host.run(["useradd", "--system", "--user-group", *home, "headscale"])
        self.host.run(["chown", "headscale:", "/etc/headscale/tls.key"])
        self.host.run(["systemctl", "enable", "--quiet", "--now", "headscale"])
        self.await_answer()
        self.command("users", "create", USER)

    def await_answer(self) -> None:
        """Wait until it answers. Raises LabError with the last lines of its log."""
        health = [
            "curl", "--silent", "--fail", "--insecure", "--max-time", "1", f"https://127.0.0.1:{PORT}/health",
        ]
        wait_for(
            lambda: self.host.run(health, check=False).returncode == 0,
            timeout_s=20,
            what="headscale did not come up",
            why=lambda: self.host.run(["journalctl", "-u", "headscale", "-n", "5", "-o", "cat"]).stdout,
        )

    def command(self, *arguments: str) -> str:
        """Return the output of `headscale ARGUMENTS --output json`. Raises LabError."""
        return self.host.run(["headscale", *arguments, "--output", "json"]).stdout

    def preauth_key(self) -> str:
        """Make a key that admits one client. headscale forgets the client when it leaves."""
        users = json.loads(self.command("users", "list", "--name", USER))
        made = json.loads(
            self.command(
                "preauthkeys", "create", "--user", str(users[0]["id"]), "--ephemeral", "--expiration", "1h"
            )
        )
        return str(made["key"])

    def regions(self) -> dict[str, object]:
        """Return the regions that it serves now, by their number as text.

        They have the form of its debug page: region_id, region_name, nodes and more.
        """
        page = [
            "curl", "--silent", "--fail", "--max-time", "2", "-H", "Accept: application/json",
            "http://127.0.0.1:9090/debug/derp",
        ]
        found: dict[str, object] = json.loads(self.host.run(page).stdout)["regions"]
        return found
