"""The 26 resources for pyinfra: `pyinfra inventory.py pyinfra_deploy.py`.

The folder of contents is given by the data key `files`.
"""

import json
from pathlib import Path

from pyinfra import host
from pyinfra.facts.files import File
from pyinfra.operations import apt, files, server, systemd

CONTENTS = Path(host.data.files)
VARIABLES = json.loads((CONTENTS / "variables.json").read_text())

for package in ("ca-certificates", "curl", "nftables"):
    apt.packages(packages=[package])
server.group(group="derpbench", system=True)
server.user(
    user="derpbench",
    group="derpbench",
    system=True,
    home="/nonexistent",
    ensure_home=False,
    shell="/usr/sbin/nologin",
)
for path in ("/etc/derpbench", "/opt/derpbench", "/opt/derpbench/releases"):
    files.directory(path=path, mode="755", user="root", group="root")
files.directory(path="/var/lib/derpbench", mode="750", user="derpbench", group="derpbench")
files.directory(path="/var/lib/derpbench/webroot", mode="755", user="derpbench", group="derpbench")
for name, folder in (
    ("relay.json", "/etc/derpbench"),
    ("map.json", "/etc/derpbench"),
    ("limits.conf", "/etc/derpbench"),
    ("relay.bin", "/opt/derpbench/releases"),
):
    files.put(src=str(CONTENTS / name), dest=f"{folder}/{name}", mode="644", user="root", group="root")
files.put(
    src=str(CONTENTS / "relay.key"),
    dest="/etc/derpbench/relay.key",
    mode="640",
    user="root",
    group="derpbench",
)
unit = files.put(
    src=str(CONTENTS / "derpbench.service"), dest="/etc/systemd/system/derpbench.service", mode="644"
)
environment = files.template(
    src=str(CONTENTS / "relay.env.j2"),
    dest="/etc/derpbench/relay.env",
    mode="644",
    jinja_env_kwargs={"trim_blocks": True},
    **VARIABLES,
)
files.template(
    src=str(CONTENTS / "nginx.conf.j2"),
    dest="/etc/derpbench/nginx.conf",
    mode="644",
    jinja_env_kwargs={"trim_blocks": True},
    **VARIABLES,
)
files.link(path="/opt/derpbench/current", target="releases")
files.link(path="/etc/derpbench/enabled.conf", target="nginx.conf")
for key, value in (("net.ipv4.tcp_keepalive_time", 600), ("net.ipv4.tcp_fin_timeout", 30)):
    server.sysctl(key=key, value=value, persist=True, persist_file="/etc/sysctl.d/60-derpbench.conf")
if not host.get_fact(File, path="/var/lib/derpbench/first.json"):
    server.shell(commands=["cp /etc/derpbench/relay.json /var/lib/derpbench/first.json"])
for name in ("ssh.service", "dpkg-db-backup.timer"):
    systemd.service(service=name, enabled=True, running=True)
systemd.service(
    service="derpbench.service",
    enabled=True,
    running=True,
    daemon_reload=unit.changed,
    restarted=unit.changed or environment.changed,
)
