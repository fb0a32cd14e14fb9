"""Debian, Ubuntu, and what derives from them."""

from __future__ import annotations

from inventory.checkout import CHECKOUT
from roles.distributions.contract import Carriage, Daemon, Family, Nginx, Repository, Supervisor

FAMILY = Family(
    system="Debian",
    owner="dpkg -S",
    python="",
    clock=Daemon(package="systemd-timesyncd", unit="systemd-timesyncd.service"),
    cron=Daemon(package="cron", unit="cron.service"),
    nginx=Nginx(
        user="www-data",
        folder="/etc/nginx/sites-enabled",
        folders=("/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-enabled/*"),
        modules="/etc/nginx/modules-enabled/*.conf",
        stream_package="libnginx-mod-stream",
        conf_package="nginx-common",
        welcome="/etc/nginx/sites-enabled/default",
    ),
    docker=Repository(
        path="/etc/apt/sources.list.d/derpfleet-docker.sources",
        template="docker.sources.j2",
        key_path="/etc/apt/keyrings/derpfleet-docker.asc",
        # Docker Release (CE deb), 9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88
        key=CHECKOUT / "files" / "docker.asc",
        # Recommended packages are not installed by themselves, but Docker needs AppArmor's parser.
        packages=("docker-ce", "docker-ce-cli", "containerd.io", "apparmor"),
    ),
    carriage=Carriage(
        resolver="resolve_debs",
        installed=(
            *("dpkg-query", "--show"),
            *("--showformat", "${Package} ${Version} ${db:Status-Status}\\n"),
        ),
        template="brought-debian.list.j2",
    ),
    supervisor=Supervisor(
        unit="supervisor.service",
        config="/etc/supervisor/supervisord.conf",
        program_file="/etc/supervisor/conf.d/{}.conf",
    ),
    trust={"/etc/ssl/certs": "/etc/ssl/certs"},
)
