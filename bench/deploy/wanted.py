"""The final state of the host: 26 resources, and the text that proves a tool really made them.

| kind | how many | which |
| --- | --- | --- |
| package, already installed | 3 | ca-certificates, curl, nftables |
| group, user | 2 | derpbench |
| directory | 5 | see below |
| file | 6 | see below |
| template | 2 | relay.env, nginx.conf |
| symbolic link | 2 | current, enabled.conf |
| kernel setting, also at boot | 2 | net.ipv4.tcp_keepalive_time, net.ipv4.tcp_fin_timeout |
| service, enabled and running | 3 | ssh, dpkg-db-backup.timer, derpbench |
| guarded command | 1 | a copy that is made once |

Directories: /etc/derpbench, /opt/derpbench, /opt/derpbench/releases, /var/lib/derpbench (0750,
derpbench) and its webroot. Files: relay.json 512 B, relay.key (0640, a secret), map.json 16 KiB,
relay.bin 1 MiB (does not compress), limits.conf and the unit. derpbench is restarted when its unit
or its environment changed.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

HERE = Path(__file__).parent
VARIABLES = {
    "hostname": "hk1.example.org",
    "region": "hk",
    "ports": {"https": 443, "http": 80, "stun": 3478, "backend": 81},
}


def write_contents(folder: Path) -> None:
    """Write the files that every tool copies, the same each time."""
    rng = random.Random(26)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (HERE / "files").iterdir():
        shutil.copy(path, folder)
    (folder / "relay.json").write_text(json.dumps({"PrivateKey": "none", "padding": "x" * 470}) + "\n")
    (folder / "relay.key").write_text("privkey:" + rng.randbytes(32).hex() + "\n")
    regions = {
        str(900 + i): {"RegionID": 900 + i, "RegionCode": f"r{i}", "note": rng.randbytes(60).hex()}
        for i in range(90)
    }
    (folder / "map.json").write_text(json.dumps({"Regions": regions}, indent=1) + "\n")
    (folder / "relay.bin").write_bytes(rng.randbytes(1 << 20))
    (folder / "variables.json").write_text(json.dumps(VARIABLES))


# Run on the host by `sh`, not through the proxy. Removes everything but the packages.
RESET = r"""
exec >/dev/null 2>&1
systemctl disable --now derpbench.service
rm -rf /etc/derpbench /opt/derpbench /var/lib/derpbench /etc/systemd/system/derpbench.service
rm -rf /etc/sysctl.d/*derpbench*.conf
rm -rf /etc/sysctl.d/60-derpfleet-*.conf /var/lib/derpfleet /run/derpfleet /root/.ansible /tmp/pyinfra*
systemctl daemon-reload
systemctl reset-failed
userdel derpbench
groupdel derpbench
sysctl -q -w net.ipv4.tcp_keepalive_time=7200 net.ipv4.tcp_fin_timeout=60
true
"""

# Prints the state of the 26 resources; equal text means equal work.
STATE = r"""
cd /
dpkg-query -W -f '${Package} ${db:Status-Status}\n' ca-certificates curl nftables
getent passwd derpbench | cut -d: -f1,6,7; id -gn derpbench
unit=etc/systemd/system/derpbench.service
for f in $(find etc/derpbench opt/derpbench var/lib/derpbench $unit | LC_ALL=C sort); do
  stat -c '%n %F %a %U %G' $f; [ -L $f ] && readlink $f; [ -f $f ] && sha256sum < $f
done
sysctl net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout
cat /etc/sysctl.d/*derp* | grep -o 'net[^#]*' | tr -d ' ' | sort
for u in ssh dpkg-db-backup.timer derpbench; do systemctl is-enabled $u; systemctl is-active $u; done
"""
