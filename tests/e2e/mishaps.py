"""Faults on the hosts of the lab, and the way back from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import lab
from lab.acme import PORT
from lab.certificates import make_server_certificate
from lab.files import write_tree
from lab.process import wait_for
from lab.topology import ACME, ACME_AT, DOMAIN
from tests.e2e.desk import Desk, Ran
from tests.e2e.observations import installed
from tests.support.debian import program

# A unit of this name installs packages when a VPS boots for the first time.
CLOUD_INIT = "cloud-final"
HOLD_LOCK = """
import fcntl, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(3600)
"""
# In the middle: dpkg has begun a step and not recorded it whole.
FREEZE_DPKG = """
until pids=$(pgrep -x dpkg) && kill -STOP $pids && ls /var/lib/dpkg/updates | grep -q '^[0-9]'; do
  kill -CONT $pids; sleep 0.005
done 2>/dev/null
"""
LIMITED = """
user root; daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off; {places}
  server {{
    listen {address}:14001 ssl;
    ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    location = /order-plz {{
      default_type application/problem+json;
      return 429 '{{"type": "urn:ietf:params:acme:error:rateLimited", "status": 429,
        "detail": "too many certificates already issued for derp.lab: retry after 2030-01-01T00:00:00Z"}}';
    }}
    location / {{ proxy_pass https://{address}:{to}; proxy_set_header Host $http_host; }}
  }}
}}
"""
LISTEN = """
import socket, time
kind = socket.SOCK_{kind}
sock = socket.socket(socket.AF_INET, kind)
sock.bind(("0.0.0.0", {port}))
if kind == socket.SOCK_STREAM: sock.listen()
time.sleep(3600)
"""


@contextlib.contextmanager
def unit(stage: lab.Lab, host: str, name: str, program: str) -> Iterator[None]:
    """Run a Python program as a transient unit of this name on a host."""
    stage.run_in(host, ["systemd-run", f"--unit={name}", "--quiet", "--collect", "python3", "-c", program])
    try:
        yield
    finally:
        stage.run_in(host, ["systemctl", "stop", f"{name}.service"], check=False)


@contextlib.contextmanager
def drop_in(stage: lab.Lab, host: str, name: str, text: str) -> Iterator[None]:
    """Add settings to a unit of a host."""
    path = f"/run/systemd/system/{name}.d/mishap.conf"
    stage.run_in(
        host,
        ["sh", "-c", f"mkdir -p {path.rpartition('/')[0]}; cat >{path}; systemctl daemon-reload"],
        input=text,
    )
    try:
        yield
    finally:
        stage.run_in(host, ["sh", "-c", f"rm {path}; systemctl daemon-reload; systemctl reset-failed {name}"])


def purge(stage: lab.Lab, host: str) -> None:
    """Remove those packages again, where they are installed."""
    if found := sorted(installed(stage, host)):
        stage.run_in(host, ["apt-get", "purge", "-qq", "-y", "--auto-remove", *found], timeout_s=120)


def await_agent(stage: lab.Lab, host: str) -> None:
    """Wait until no agent is left on the host."""
    wait_for(
        lambda: stage.run_in(host, ["pgrep", "--full", "READY 1"], check=False).returncode == 1,
        timeout_s=60,
        what="the agent does not end",
    )


@contextlib.contextmanager
def elsewhere(stage: lab.Lab, host: str) -> Iterator[None]:
    """Point the host's name to another machine, which does not answer."""
    stage.dns.point(f"{host}.derp.lab", stage.topology.ipv4("hs1"))
    try:
        yield
    finally:
        stage.dns.restore()


@contextlib.contextmanager
def rate_limited(stage: lab.Lab) -> Iterator[tuple[str, Path]]:
    """Run an nginx that refuses new orders in front of the lab's ACME server.

    Yields its directory's URL, and the CA to trust.
    """
    folder, address = stage.root / "limited", stage.topology.address(ACME_AT)
    authority, certificate, key = make_server_certificate(f"{ACME}.{DOMAIN}", address)
    places = "".join(
        f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = LIMITED.format(folder=folder, places=places, address=address, to=PORT)
    write_tree(folder, {"ca.pem": authority, "chain.pem": certificate, "key.pem": key, "nginx.conf": conf})
    stage.processes.start(
        "limited",
        [*stage.enter, program("nginx", "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")],
    )
    try:
        wait_for(
            (folder / "pid").exists,
            timeout_s=10,
            what="nginx does not listen",
            why=lambda: stage.processes.tail("limited"),
        )
        yield f"https://{ACME}.{DOMAIN}:{PORT + 1}/dir", folder / "ca.pem"
    finally:
        stage.processes.stop("limited")


def kill_agent(stage: lab.Lab, host: str) -> None:
    """Send SIGKILL to the agent's Python and to nothing else."""
    pids = stage.run_in(host, ["pgrep", "--full", "READY 1"]).stdout.split()
    stage.run_in(host, ["kill", "-KILL", *pids], check=False)


def boot_again(stage: lab.Lab, host: str) -> None:
    """Boot a host after a power cut, and wait until SSH answers.

    Its old hardware address may be remembered for a while.
    """
    stage.hosts[host].boot()
    answers = f"until ssh-keyscan -T 2 {host}.derp.lab 2>/dev/null | grep -q ssh-; do sleep 0.5; done"
    stage.run_in("controller", ["sh", "-c", answers], timeout_s=90)


def deployed(stage: lab.Lab, host: str) -> Ran:
    """Deploy, once the agent of a run that was cut off has ended by itself."""
    await_agent(stage, host)
    return Desk(stage).invoke("deploy", "--host", host, timeout_s=600)
