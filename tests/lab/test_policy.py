"""The additions to SELinux's policy, and the labels of our files, by a real policy.

No host of the lab enforces one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from artefacts.programs import TAILSCALED
from inventory.checkout import CACHE, CHECKOUT
from lab import policy
from roles import paths, selinux

pytestmark = [pytest.mark.lab]
READ = """
import json, sys
from agent.selinux import labelled_ports
print(json.dumps({label: sorted(ports) for label, ports in labelled_ports(sys.stdin.read()).items()}))
"""


@pytest.fixture(scope="module")
def root() -> Path:
    return policy.root(cache=CACHE, progress=print)


def test_nginx_reaches_our_ports_with_the_boolean_and_no_others(root: Path) -> None:
    rules = policy.allowed(root, "httpd_t", selinux.LABEL, "name_connect")
    assert f"allow httpd_t {selinux.LABEL}:tcp_socket name_connect; [ {selinux.BOOLEAN} ]:True" in rules
    assert not [rule for rule in rules if "[" not in rule]  # none without a boolean


def test_nginx_may_listen_on_ports_with_our_label(root: Path) -> None:
    rules = policy.allowed(root, "httpd_t", selinux.LABEL, "name_bind")
    assert f"allow httpd_t {selinux.LABEL}:tcp_socket name_bind;" in rules


@pytest.mark.parametrize(
    ("path", "label"),
    [
        (paths.CERTIFICATE_PROGRAM, "bin_t"),  # systemd starts it, and the next one
        (f"{paths.OPT}/tailscaled-releases/a1/{TAILSCALED.program}", "bin_t"),
        (f"{paths.RELEASES}/a1/relay/__main__.py", "usr_t"),  # Python reads it
        ("/var/www/derpfleet/.well-known/acme-challenge/x", "httpd_sys_content_t"),
        ("/etc/nginx/conf.d/zz-derpfleet-https.conf", "httpd_config_t"),
        (f"{paths.SYSTEMD}/{paths.SERVICE}", "systemd_unit_t"),
    ],
)
def test_the_policys_labels_are_those_that_our_files_need(root: Path, path: str, label: str) -> None:
    assert policy.label(root, path) == label


def test_the_agent_reads_what_semanage_prints(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=CHECKOUT / "files", input=policy.ports(root),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert {80, 443, 8443} <= set(found[selinux.LABEL])
    assert 10002 in found["http_cache_port_t"]  # in a range
    assert 3128 not in found[selinux.LABEL]
