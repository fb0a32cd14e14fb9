"""Go's derper as the relay of a lab host: it tests a lab without our own relay."""

from __future__ import annotations

import shutil

from artefacts import go
from lab import Lab
from lab.certificates import make_server_certificate
from lab.process import wait_for
from lab.programs import DERPER
from lab.topology import HOSTS

REGIONS = {name: spec.region for name, spec in HOSTS.items() if spec.region}


def start(lab: Lab, name: str) -> None:
    """Start derper on a host; it admits the clients that the lab's headscale knows."""
    host = lab.hosts[name]
    program = go.build(DERPER, cache=lab.cache, progress=print) / "derper"
    shutil.copyfile(program, host.root / "usr/local/bin/derper")
    (host.root / "usr/local/bin/derper").chmod(0o755)
    _, certificate, key = make_server_certificate(host.spec.domain, lab.topology.ipv4(name))
    host.write(
        {
            f"etc/derper/{host.spec.domain}.crt": certificate.decode(),
            f"etc/derper/{host.spec.domain}.key": key.decode(),
        }
    )
    verify = ["-verify-client-url", f"{lab.headscale.url}/verify", "-verify-client-url-fail-open=false"]
    serve = [
        "derper", "-c", "/var/lib/derper.key", "-hostname", host.spec.domain, "-certmode", "manual",
        "-certdir", "/etc/derper", *verify,
    ]
    host.run(["systemd-run", "--quiet", "--unit=derper", "--collect", *serve])


def stop(lab: Lab, name: str) -> None:
    """Stop it, if it runs, and remove the files that `start` put there."""
    lab.hosts[name].run(["systemctl", "stop", "derper"], check=False)
    lab.hosts[name].run(["rm", "-rf", "/etc/derper", "/var/lib/derper.key", "/usr/local/bin/derper"])


def announce(lab: Lab, *names: str) -> None:
    """Put the regions of these hosts, and the neighbours', into headscale's map, and wait until it
    serves them."""
    text = (
        (lab.hosts["hs1"].root / "etc/headscale/derp.yaml")
        .read_text()
        .partition("  901:")[0]
        .partition("  902:")[0]
    )
    for name in names:
        number, code, title = REGIONS[name]
        address = lab.topology.ipv4(name)
        node = (
            f"{{name: {number}a, regionid: {number}, hostname: {name}.derp.lab, ipv4: {address}, ipv6: "
            "none, insecurefortests: true}"
        )
        text += (
            f"  {number}:\n    regionid: {number}\n    regioncode: {code}\n    "
            f"regionname: {title}\n    nodes: [{node}]\n"
        )
    lab.hosts["hs1"].write({"etc/headscale/derp.yaml": text})
    wanted = {"910", *(str(REGIONS[name][0]) for name in names)}
    wait_for(
        lambda: set(lab.headscale.regions()) == wanted,
        timeout_s=15,
        what="headscale does not serve the new map",
    )
