"""The command that opens the ports of sshd's configuration: a real sshd, a real nft."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.roles.test_units import rules, units

UNIT = "derpfleet-ssh-ports.service"


def command() -> str:
    """Return the script of ExecStart=, as sh gets it from systemd."""
    found = re.search(r"^ExecStart=/bin/sh -c '([^']*)'$", units("bare")[UNIT], re.M)
    assert found is not None
    return found[1].replace("\\\n", " ").replace("$$", "$")


def opened(tmp_path: Path, configuration: str) -> subprocess.CompletedProcess[str]:
    """Return the set's elements after the command ran, in namespaces with this sshd_config."""
    folder = tmp_path / "ssh"
    folder.mkdir()
    (folder / "sshd_config").write_text(f"HostKey {tmp_path}/key\n{configuration}")
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(keygen, check=True)
    (tmp_path / "rules").write_text(rules("bare") or "")
    (tmp_path / "run").write_text(command())
    steps = (
        f"mount --bind {folder} /etc/ssh && mkdir -p /run/sshd && nft -f {tmp_path}/rules",
        f"sh {tmp_path}/run && sh {tmp_path}/run",
        "nft list set inet derpfleet ssh",
    )
    argv = ["unshare", "--net", "--mount", "sh", "-c", " && ".join(steps)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("configuration", "ports"),
    [
        ("Port 2200\n", "2200"),
        ("Port 22\nPort 2222\n", "22, 2222"),
        ("ListenAddress 0.0.0.0:8022\nListenAddress [::1]:8023\n", "22, 8022, 8023"),
    ],
)
def test_the_ports_of_a_changed_configuration_are_opened(
    configuration: str, ports: str, tmp_path: Path
) -> None:
    done = opened(tmp_path, configuration)
    assert f"elements = {{ {ports} }}" in done.stdout, done.stderr


def test_a_configuration_that_sshd_refuses_opens_nothing_and_fails(tmp_path: Path) -> None:
    done = opened(tmp_path, "Port 2200\nNonsense yes\n")
    assert done.returncode != 0 and "Nonsense" in done.stderr
