"""The docker flavour with its downloads: an image from a registry, and packages from an apt
repository like Docker's own."""

from __future__ import annotations

import hashlib
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lab
from lab.certificates import make_server_certificate
from lab.debian import INSTALL
from lab.process import wait_for
from lab.topology import HOSTS
from tests.e2e.desk import CHECKOUT, Desk
from tests.e2e.steps import derper_image, exchange

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
REGISTRY = "hs1.derp.lab:5000"
REGISTRY_CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: ":5000", tls: {certificate: /etc/docker/registry/tls.pem, key: /etc/docker/registry/tls.key}}
"""
MIRROR_PORT = 8999
WITH_ANOTHER_KEY = """\
import sys
from pathlib import Path
from roles.distributions import debian
object.__setattr__(debian.FAMILY.docker, "key", Path(sys.argv.pop(1)))
from invoke.main import program
program.run()
"""


@pytest.fixture(scope="module")
def registry(stage: lab.Lab) -> str:
    """Debian's docker-registry on hs1, with https that the lab's hosts trust."""
    stage.run_in("hs1", ["apt-get", "update", "-q"], timeout_s=120)
    stage.run_in("hs1", [*INSTALL, "docker-registry"], timeout_s=300)
    stage.run_in("hs1", ["sh", "-c", "cat >/etc/docker/registry/config.yml"], input=REGISTRY_CONFIG)
    for name, mode in (("tls.pem", "0644"), ("tls.key", "0600")):
        copy = [
            "install", "-o", "docker-registry", "-m", mode, f"/etc/headscale/{name}",
            f"/etc/docker/registry/{name}",
        ]
        stage.run_in("hs1", copy)
    stage.run_in("hs1", ["systemctl", "restart", "docker-registry"])
    ask = ["curl", "--silent", "--fail", f"https://{REGISTRY}/v2/"]
    wait_for(
        lambda: stage.run_in("hk1", ask, check=False).returncode == 0,
        timeout_s=15,
        what="the registry does not answer",
    )
    return REGISTRY


def test_an_image_from_a_registry_with_nothing_in_front(desk: Desk, registry: str) -> None:
    stage = desk.stage
    _, chain, key = make_server_certificate("hk1.derp.lab", stage.topology.ipv4("hk1"))
    (stage.root / "hk1.pem").write_bytes(chain)
    (stage.root / "hk1.key").write_bytes(key)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.decode())).hexdigest()
    manual = {"source": "manual", "fullchain": "hk1.pem", "key": "file:hk1.key", "pin": pin}
    desk.edit(
        "hk1", flavour="docker", front="none", certificate=manual, docker={"archive": derper_image(stage)}
    )
    deployed = desk.invoke("deploy", "--host", "hk1", timeout_s=600)
    assert deployed.code == 0, deployed.why()

    # The same image goes to the registry and off the host, which then can get it only from the
    # registry.
    [local] = stage.run_in(
        "hk1", ["docker", "inspect", "--format", "{{.Image}}", "derpfleet-derper"]
    ).stdout.split()
    for words in (["tag", local, f"{registry}/derper:1"], ["push", "--quiet", f"{registry}/derper:1"]):
        stage.run_in("hk1", ["docker", *words], timeout_s=120)
    form = "{{index .RepoDigests 0}}"
    reference = stage.run_in(
        "hk1", ["docker", "image", "inspect", "--format", form, f"{registry}/derper:1"]
    ).stdout.strip()
    stage.run_in("hk1", ["docker", "rm", "--force", "derpfleet-derper"])
    stage.run_in("hk1", ["docker", "image", "rm", "--force", local])

    desk.edit("hk1", docker={"image": reference})
    refused = desk.invoke("deploy", "--host", "hk1")
    assert refused.code == 1
    assert "verify_fail_open" in refused.failure()["why"]
    desk.edit("hk1", relay={"verify_fail_open": True})
    ran = desk.invoke("deploy", "--host", "hk1", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert f"image:{reference}" in ran.changed("hk1")
    assert ran.proof("hk1")["packets_passed"]
    assert desk.invoke("deploy", "--host", "hk1").changed("hk1") == []
    nodes = stage.clients["site-a"], stage.clients["site-b"]
    for node in nodes:
        node.join()
    exchange(nodes, "hk")


def test_an_image_that_the_registry_does_not_have(desk: Desk, registry: str) -> None:
    before = desk.stage.site_file.read_text()
    desk.edit("hk1", docker={"image": f"{registry}/derper@sha256:{'0' * 64}"})
    try:
        ran = desk.invoke("deploy", "--host", "hk1")
    finally:
        desk.stage.site_file.write_text(before)
    assert ran.code == 7, ran.why()  # the host is as it was
    assert ran.failure()["subject"] == f"image:{registry}/derper@sha256:{'0' * 64}"
    assert desk.invoke("verify", "--host", "hk1").code == 0  # the former container still serves


@contextmanager
def serving(stage: lab.Lab, folder: Path) -> Iterator[str]:
    """Serve a folder over http in the lab's own network."""
    argv = [*stage.enter, sys.executable, "-m", "http.server", "--directory", str(folder), str(MIRROR_PORT)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://controller.derp.lab:{MIRROR_PORT}/docker-ce"
    finally:
        server.terminate()
        server.wait(10)


def make_repository(folder: Path, home: Path, docker: Path, suite: str) -> Path:
    """Make a signed apt repository laid out as Docker's; return the key.

    Its docker-ce is Debian's package (`docker`) under another name.
    """
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--yes"]
    home.mkdir(mode=0o700)
    subprocess.run(
        [*gpg, "--passphrase", "", "--quick-generate-key", "stand-in", "ed25519", "sign"],
        check=True,
        capture_output=True,
    )
    key = home / "key.asc"
    subprocess.run([*gpg, "--armor", "--output", str(key), "--export"], check=True, capture_output=True)
    base = folder / "docker-ce" / "linux" / "debian"
    pool, binary = base / "pool", base / "dists" / suite / "stable" / "binary-amd64"
    for place in (pool, binary):
        place.mkdir(parents=True)
    index = ""
    for name in ("docker-ce", "docker-ce-cli", "containerd.io"):
        tree = home / name
        if name == "docker-ce":
            subprocess.run(["dpkg-deb", "--raw-extract", str(docker), str(tree)], check=True)
            relations = re.findall(r"^(?:Pre-)?Depends: .*$", (tree / "DEBIAN" / "control").read_text(), re.M)
        else:
            (tree / "DEBIAN").mkdir(parents=True)
            relations = []
        head = [
            f"Package: {name}",
            "Version: 5:99",
            "Architecture: amd64",
            "Maintainer: test <test@derp.lab>",
        ]
        control = "\n".join([*head, *relations, "Description: stand-in"]) + "\n"
        (tree / "DEBIAN" / "control").write_text(control)
        deb = pool / f"{name}.deb"
        subprocess.run(
            ["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(deb)],
            check=True,
            capture_output=True,
        )
        data = deb.read_bytes()
        index += (
            f"{control}Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: "
            f"{hashlib.sha256(data).hexdigest()}\n\n"
        )
    (binary / "Packages").write_text(index)
    digest = hashlib.sha256(index.encode()).hexdigest()
    release = base / "dists" / suite / "Release"
    release.write_text(
        f"Origin: Docker\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: stable\n"
        f"Date: Sun, 22 Nov 2026 00:00:00 UTC\nSHA256:\n {digest} {len(index)} stable/binary-amd64/Packages\n"
    )
    subprocess.run(
        [*gpg, "--clearsign", "--output", str(release.with_name("InRelease")), str(release)],
        check=True,
        capture_output=True,
    )
    return key


def test_dockers_own_packages_from_a_mirror(desk: Desk, tmp_path: Path) -> None:
    stage = desk.stage
    [docker] = (stage.hosts["hk1"].root / "var/cache/apt/archives").glob("docker.io_*.deb")
    try:
        key = make_repository(tmp_path / "www", tmp_path / "gpg", docker, HOSTS["sg1"].suite)
    finally:  # gpg leaves an agent
        subprocess.run(["gpgconf", "--homedir", str(tmp_path / "gpg"), "--kill", "all"], check=False)
    direct = 'Acquire::http::Proxy::controller.derp.lab "DIRECT";\n'
    stage.run_in("sg1", ["sh", "-c", "cat >/etc/apt/apt.conf.d/99direct"], input=direct)
    with serving(stage, tmp_path / "www") as mirror:
        desk.edit(
            "sg1",
            flavour="docker",
            docker={"archive": derper_image(stage), "packages": "docker", "mirror": mirror},
        )
        verb = ["deploy", "--host", "sg1", "--site", str(stage.site_file)]
        # Docker's real key is shipped, and only Docker has its secret half.
        argv = [*stage.enter, sys.executable, "-c", WITH_ANOTHER_KEY, str(key), *verb]
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        there = stage.run_in(
            "sg1", ["dpkg-query", "--show", "docker-ce", "docker-ce-cli", "containerd.io"]
        ).stdout
        assert there.count("5:99") == 3
        again = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)
        assert "sg1        ok           0 changes" in again.stdout, again.stdout
