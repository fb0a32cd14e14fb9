"""Enterprise Linux and its relatives: RHEL, Rocky Linux, AlmaLinux, CentOS Stream, Oracle Linux,
Fedora, Amazon Linux."""

from __future__ import annotations

from inventory.checkout import CHECKOUT
from roles.distributions.contract import Carriage, Daemon, Family, Nginx, Repository, Supervisor

# There /etc/ssl/certs is a chain of links, which lead nowhere in a container.
_BUNDLE = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"

FAMILY = Family(
    system="Enterprise Linux",
    owner="rpm -qf",
    python="python3.11",  # AppStream's; python3 is 3.6 in release 8 and 3.9 in release 9
    clock=Daemon(package="chrony", unit="chronyd.service"),
    cron=Daemon(package="cronie", unit="crond.service"),
    nginx=Nginx(
        user="nginx",
        folder="/etc/nginx/conf.d",
        folders=("/etc/nginx/conf.d/*.conf",),
        modules="/usr/share/nginx/modules/*.conf",
        stream_package="nginx-mod-stream",
        conf_package="nginx",
        welcome="",
    ),
    docker=Repository(
        path="/etc/yum.repos.d/derpfleet-docker.repo",
        template="docker.repo.j2",
        key_path="/etc/pki/rpm-gpg/derpfleet-docker.asc",
        # Docker Release (CE rpm), 060A 61C5 1B55 8A7F 742B 77AA C52F EB6B 621E 9F35
        key=CHECKOUT / "files" / "docker-rpm.asc",
        packages=("docker-ce", "docker-ce-cli", "containerd.io"),
    ),
    carriage=Carriage(
        resolver="resolve_rpms",
        installed=(
            *("rpm", "--query", "--all"),
            *("--queryformat", "%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE} installed\\n"),
        ),
        template="brought-redhat.repo.j2",
    ),
    supervisor=Supervisor(
        unit="supervisord.service",
        config="/etc/supervisord.conf",
        program_file="/etc/supervisord.d/{}.ini",
    ),
    trust={_BUNDLE: "/etc/ssl/certs/ca-certificates.crt"},
    too_old={
        "8": "it has had no updates since May 2024",
        "7": "it has had no updates since June 2024, and its systemd (219), OpenSSL (1.0.2) and yum are "
        "older than the relay's units and programs can do with",
        "2": "its systemd (219), Python (3.7) and yum are older than the relay's units and programs can do "
        "with",
    },
    streams={"8": "nginx:1.24"},  # the default there is 1.14, without proxy_socket_keepalive
)
