"""An Enterprise Linux whose own sources cannot be reached: from a mirror, then by the controller.

The RPMs are the lab's, signed here with a key that the host has where Rocky Linux has its own. A
web server on loopback has them: that of the host for the mirror, and that of the controller for
what the host itself cannot fetch.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.process import wait_for
from lab.to_rpm import BASE, PROVIDES
from tests.e2e.desk import Desk
from tests.e2e.steps import proved

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
ONLY = ("hs1", "el1", "acme")
HOST = "el1"
OFFLINE = {"DERPFLEET_OFFLINE": "1"}
PORT, SERVED = 8999, "/srv/mirror"
MIRROR = f"http://127.0.0.1:{PORT}/rocky"
KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-Rocky-9"
APPSTREAM, BASEOS = (f"{SERVED}/rocky/9/{name}/x86_64/os" for name in ("AppStream", "BaseOS"))
REMOVE = "systemctl stop nginx; rpm --erase --nodeps nginx nginx-filesystem nftables"
SPEC = f"""Name: base
Version: 9.6
Release: 1.el9
Summary: what the host had from the beginning
License: BSD
BuildArch: noarch
Provides: {PROVIDES}, {', '.join(BASE)}
%description
.
%files
"""
# Release 8: the default stream of the module nginx has an old one, and another stream the lab's.
STREAMS = {"1.14": "1.14.1", "1.24": "1.24.0"}
MODULE = """---
document: modulemd
version: 2
data:
  name: nginx
  stream: "{stream}"
  version: 1
  context: lab
  arch: x86_64
  summary: nginx
  description: nginx
  license: {{module: [MIT]}}
  artifacts: {{rpms: ["nginx-1:{version}-1.el9.x86_64"]}}
...
"""
DEFAULT = """---
document: modulemd-defaults
version: 1
data: {module: nginx, stream: "1.14", profiles: {"1.14": []}}
...
"""
MODULAR_SPEC = """Name: nginx
Epoch: 1
Version: {version}
Release: 1.el9
Summary: nginx of a module stream
License: BSD
ModularityLabel: nginx:{stream}:1:lab
AutoReqProv: no
Requires: nginx-filesystem
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%description
.
%files
%defattr(-,root,root,-)
{files}
"""
SIGN = "rpmsign --define '_gpg_name lab' --define '__gpg /usr/bin/gpg'"
MODULES = f"""
export GNUPGHOME=/srv/keys
rm -rf /srv/tree
mkdir /srv/tree
cd /srv
cat /srv/repo/x86_64/nginx-1*.rpm | rpm2archive - | tar -xz -C tree
rm {APPSTREAM}/nginx-1*.rpm
for stream in {' '.join(STREAMS)}; do
    rpmbuild -bb --quiet --define '_rpmdir {APPSTREAM}' --buildroot /srv/tree --noclean nginx-$stream.spec
done
{SIGN} --addsign {APPSTREAM}/x86_64/nginx-*.rpm >/dev/null
gpgconf --kill all
createrepo_c --quiet {APPSTREAM}
modifyrepo_c --mdtype=modules /srv/modules.yaml {APPSTREAM}/repodata >/dev/null
sed -i 's/9\\.6/8.10/; s/platform:el9/platform:el8/' /usr/lib/os-release
{REMOVE}
dnf --quiet clean all
dnf --quiet makecache
"""
LAY_OUT = f"""
mkdir -p {APPSTREAM} {BASEOS} {Path(KEY).parent}
find /srv/repo -name '*.rpm' -exec cp {{}} {APPSTREAM} ';'
rpmbuild -bb --quiet --define '_rpmdir {BASEOS}' /srv/base.spec
export GNUPGHOME=/srv/keys
mkdir -m 700 $GNUPGHOME
gpg --batch --quiet --passphrase '' --quick-generate-key lab rsa2048 sign never
gpg --batch --armor --export lab > {KEY}
find {SERVED} -name '*.rpm' >/srv/rpms
{SIGN} --addsign $(cat /srv/rpms) >/dev/null
createrepo_c --quiet {APPSTREAM}
createrepo_c --quiet {BASEOS}
gpgconf --kill all
"""
SOURCES = "".join(
    f"[{name}]\nname={name}\nbaseurl={MIRROR}/$releasever/{name}/$basearch/os\ngpgcheck=1\ngpgkey=file://{KEY}\n"
    for name in ("AppStream", "BaseOS")
)
# The signed one is put aside, and the lab's own is unsigned.
LIE = f"mv {APPSTREAM}/nginx-1*.rpm /srv/ && cp /srv/repo/x86_64/nginx-1*.rpm {APPSTREAM}/"
REPENT = f"mv /srv/nginx-1*.rpm {APPSTREAM}/"


def sh(desk: Desk, script: str) -> str:
    return desk.stage.run_in(HOST, ["sh", "-ec", script], timeout_s=300).stdout


@contextmanager
def served_by_the_host(desk: Desk) -> Iterator[None]:
    """Serve the packages on loopback of the host."""
    serve = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", SERVED, str(PORT)]
    desk.stage.run_in(HOST, ["systemd-run", "--quiet", "--collect", "--unit=mirror", *serve])
    try:
        answered_in(desk, HOST)
        yield
    finally:
        desk.stage.run_in(HOST, ["systemctl", "stop", "mirror"])


@contextmanager
def served_to_the_controller(desk: Desk) -> Iterator[None]:
    """Serve the packages on the controller's loopback, which the host does not reach."""
    folder, null = f"{desk.stage.hosts[HOST].root}{SERVED}", subprocess.DEVNULL
    serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder, str(PORT)]
    with subprocess.Popen([*desk.stage.enter, *serve], stdout=null, stderr=null) as server:
        try:
            answered_in(desk, "controller")
            yield
        finally:
            server.terminate()


def answered_in(desk: Desk, place: str) -> None:
    ask = ["curl", "--silent", "--fail", "--output", "/dev/null", f"{MIRROR}/"]
    what = f"no packages are served in {place}"
    wait_for(lambda: desk.stage.run_in(place, ask, check=False).returncode == 0, timeout_s=20, what=what)


def left_behind(desk: Desk) -> str:
    """Return what a source of packages of ours could leave on the host."""
    places = "/var/cache/derpfleet* /var/cache/dnf/derpfleet* /etc/yum.repos.d/*"
    return sh(desk, f"ls -d {places} 2>/dev/null || true")


@pytest.fixture(scope="module", autouse=True)
def packages(desk: Desk) -> None:
    """Sign the packages, and let the host's own sources be out of reach."""
    desk.stage.hosts[HOST].write({"srv/base.spec": SPEC, "etc/yum.repos.d/lab.repo": SOURCES})
    sh(desk, LAY_OUT)
    sh(desk, "ip route delete default")


def test_a_mirror_that_gives_unsigned_packages_is_named(desk: Desk) -> None:
    desk.edit(HOST, packages={"mirror": {"rocky": MIRROR}})
    sh(desk, f"{LIE}; createrepo_c --quiet {APPSTREAM}")
    with served_by_the_host(desk):
        ran = desk.invoke("deploy", "--host", HOST)
    assert ran.code != 0
    failed = [event for event in ran.of("result", HOST) if event["status"] == "failed"]
    assert f"packages.mirror {MIRROR}: other than what the distribution signed" in str(failed)
    sh(desk, f"{REPENT}; createrepo_c --quiet {APPSTREAM}")
    assert sh(desk, "rpm --query nginx || true") == "package nginx is not installed\n"


def test_packages_come_from_a_mirror_and_nothing_of_it_stays(desk: Desk) -> None:
    with served_by_the_host(desk):
        ran = proved(desk, HOST)
    assert {"package:nginx", "package:nftables"} <= set(ran.changed(HOST))
    assert "derpfleet" not in left_behind(desk)
    assert sh(desk, "cat /etc/yum.repos.d/lab.repo") == SOURCES


def test_the_controller_brings_what_the_host_lacks(desk: Desk) -> None:
    """The host has lists of its packages, and reaches none of them."""
    desk.edit(HOST, packages={"from": "controller"})
    with served_by_the_host(desk):
        sh(desk, f"{REMOVE}; dnf --quiet makecache")
    with served_to_the_controller(desk):
        ran = proved(desk, HOST)
    assert {"package:nginx", "package:nftables"} <= set(ran.changed(HOST))
    assert "derpfleet" not in left_behind(desk)
    assert sh(desk, "rpm --query --queryformat '%{RSAHEADER:pgpsig}' nginx").startswith("RSA/")


def test_a_bundle_serves_a_host_without_lists(desk: Desk, tmp_path: Path) -> None:
    bundle = tmp_path / "derpfleet.bundle"
    with served_to_the_controller(desk):
        made = desk.invoke("bundle", "--out", str(bundle), "--host", HOST)
    assert made.code == 0, made.why()
    [event] = made.of("bundle")
    assert any(name.startswith("packages/") and name.endswith(".rpm") for name in event["files"])
    used = desk.invoke("bundle", "--use", str(bundle), "--sha256", event["sha256"])
    assert used.of("bundle")[0]["files"] == event["files"]
    sh(desk, f"{REMOVE}; dnf --quiet clean all")
    ran = desk.invoke("deploy", "--host", HOST, env=OFFLINE)
    assert ran.code == 0, ran.why()
    assert ran.proof(HOST)["packets_passed"]
    assert "package:nginx" in ran.changed(HOST)


def test_release_8_gets_the_newer_nginx_of_a_module_stream(desk: Desk) -> None:
    """The solver of the real dnf takes the stream that the plan enables, not the default one."""
    files = sh(desk, "rpm --query --list nginx | while read path; do [ -d $path ] || echo $path; done")
    modules = [MODULE.format(stream=stream, version=version) for stream, version in STREAMS.items()]
    desk.stage.hosts[HOST].write({"srv/modules.yaml": "".join(modules) + DEFAULT})
    for stream, version in STREAMS.items():
        spec = MODULAR_SPEC.format(stream=stream, version=version, files=files)
        desk.stage.hosts[HOST].write({f"srv/nginx-{stream}.spec": spec})
    with served_by_the_host(desk):
        sh(desk, MODULES)
    with served_to_the_controller(desk):
        ran = proved(desk, HOST)
    assert {"command:nginx's stream", "package:nginx"} <= set(ran.changed(HOST))
    assert sh(desk, "rpm --query --queryformat '%{VERSION}' nginx") == "1.24.0"
    offered = sh(desk, "dnf --quiet --cacheonly list --showduplicates nginx").partition("Available")[2]
    assert "1:1.24.0-1.el9" in offered and "1.14" not in offered  # updates are of the same stream
