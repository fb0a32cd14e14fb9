"""Fronts on a real host beside somebody's site: nginx by name, then a HAProxy that is not ours.

In the order of the file. The certificate is self-signed, and clients know it by its pin.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator

import pytest

import lab
from lab import existing_site
from lab.certificates import make_server_certificate
from roles import paths
from tests.e2e.desk import Desk
from tests.e2e.steps import proved, rung, small, who_may_connect
from tests.support.labs import own_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
HK1, SHOP = "hk1", "shop.derp.lab"
SITE = f"/etc/nginx/sites-available/{SHOP}"
# What the refusal says: the site moves behind our stream, and nginx is not reloaded.
BEHIND = (
    "listen 127.0.0.1:444 ssl proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol; "
    "add_header X-Caller $remote_addr;"
)
MOVE = f"sed -i '/::.:443/d; s/listen 443 ssl;/{BEHIND}/' {SITE}"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    with own_lab(tmp_path_factory, "fronts", only=(HK1,)) as own:
        yield own


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    """Return a host with somebody's site on 443, and a site file that wants nginx-stream there."""
    existing_site.install(stage, HK1, SHOP)
    desk = Desk(stage)
    relay = {"front": "nginx-stream", "certificate": {"source": "self-signed"}, "relay": {"open": True}}
    small(desk, HK1, relay)
    return desk


def sh(desk: Desk, script: str) -> str:
    return desk.stage.run_in(HK1, ["sh", "-ec", script], timeout_s=300).stdout


def site_says(desk: Desk) -> str:
    """Return the answer of somebody's site from another address of the host."""
    address = desk.stage.topology.ipv4(HK1)
    return sh(desk, f"curl -sik --resolve {SHOP}:443:{address} https://{SHOP}/")


def test_a_site_on_443_is_left_alone_and_the_refusal_says_how_it_moves(desk: Desk) -> None:
    before = sh(desk, f"cat {SITE}")
    ran = desk.invoke("deploy", "--host", HK1)
    assert ran.code != 0
    assert "listen 127.0.0.1:444 ssl proxy_protocol" in str(ran.why())
    assert "which was here first" in site_says(desk)
    assert sh(desk, f"cat {SITE}") == before


def test_nginx_hands_tls_on_by_name_and_the_moved_site_still_answers(desk: Desk) -> None:
    sh(desk, MOVE)
    proved(desk, HK1)
    said = site_says(desk)
    assert "which was here first" in said
    assert f"X-Caller: {desk.stage.topology.ipv4(HK1)}" in said
    assert "relay_front_ok 1" in sh(desk, f"curl -s --unix-socket {paths.METRICS} http://localhost/metrics")
    assert desk.invoke("verify", "--host", HK1).code == 0
    assert who_may_connect(desk, HK1) == ["root", "www-data"]
    assert "derpfleet_backend" in sh(desk, "systemctl restart derpfleet-backend; nft list tables")


def test_a_host_that_was_deployed_before_has_no_gap_when_its_port_is_closed_to_others(desk: Desk) -> None:
    """Until the deploy, nginx and the relay are as an earlier version left them."""
    sh(desk, "systemctl disable --now --quiet derpfleet-backend; rm /etc/derpfleet/backend.nft")
    assert "nobody" in who_may_connect(desk, HK1)
    address = desk.stage.topology.ipv4(HK1)
    ask = f"curl -sk -o /dev/null -w '%{{http_code}}\\n' --resolve {HK1}.derp.lab:443:{address}"
    asking = f"while test -e /run/asking; do {ask} https://{HK1}.derp.lab/derp/probe || echo none; done"
    sh(desk, f"touch /run/asking; ({asking}) >/run/asked 2>&1 </dev/null &")
    proved(desk, HK1)
    assert set(sh(desk, "rm /run/asking; sort -u /run/asked").split()) == {"200"}
    assert who_may_connect(desk, HK1) == ["root", "www-data"]


def test_nginx_ends_tls_and_the_relays_copy_of_the_key_goes(desk: Desk) -> None:
    assert "hk1.derp.lab.key" in sh(desk, f"ls {paths.RELAY_CERTS}")
    desk.edit(HK1, front="nginx")
    proved(desk, HK1)
    assert who_may_connect(desk, HK1) == ["root", "www-data"]
    assert sh(desk, f"ls -d {paths.RELAY_CERTS} || true") == ""


def test_a_haproxy_of_others_is_proved_on_any_port_with_the_printed_fragment(desk: Desk) -> None:
    own = {"front": "external", "external": {"kind": "haproxy"}, "ports": {"https": 12345, "http": 8080}}
    desk.edit(HK1, **own)
    ran = desk.invoke("deploy", "--host", HK1)
    assert ran.proof(HK1)["failed"] == "tcp"
    assert "put the fragment /etc/derpfleet/front/haproxy.conf" in rung(ran, "tcp")["next"]
    (printed,) = [w["text"] for w in ran.of("warning", HK1) if "frontend derpfleet-https" in w["text"]]
    assert printed.endswith(sh(desk, "cat /etc/derpfleet/front/haproxy.conf"))
    assert "nobody" in who_may_connect(desk, HK1)  # nothing says as whom the operator's front runs
    assert "backend" not in sh(desk, "nft list tables; ls /etc/derpfleet")
    left = "ls /etc/nginx/sites-enabled /etc/nginx/modules-enabled /etc/nginx/conf.d"
    assert "derpfleet" not in sh(desk, left)

    sh(desk, "apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install haproxy >/dev/null")
    sh(desk, "cat /etc/derpfleet/front/haproxy.conf >> /etc/haproxy/haproxy.cfg; systemctl restart haproxy")
    proved(desk, HK1)
    ((region,),) = [json.loads(desk.run("derpmap").stdout)["Regions"].values()]
    assert region["Nodes"][0]["DERPPort"] == 12345


def test_derper_behind_a_haproxy_that_ends_tls(desk: Desk) -> None:
    """It needs no PROXY header then. HAProxy has the certificate, which clients know by its pin."""
    _, chain, key = make_server_certificate(f"{HK1}.derp.lab", desk.stage.topology.ipv4(HK1))
    desk.stage.hosts[HK1].write({f"etc/haproxy/{HK1}.derp.lab.pem": chain + key}, mode=0o600)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.decode())).hexdigest()
    desk.edit(
        HK1,
        external={"kind": "haproxy", "tls": "terminated"},
        certificate={"source": "front", "pin": pin},
        relay={"program": "derper", "under": "systemd", "open": True},
    )
    assert desk.invoke("deploy", "--host", HK1).counts(HK1)["failed"] == 0
    sh(desk, "sed -i '/^frontend derpfleet-https/,$d' /etc/haproxy/haproxy.cfg")
    sh(desk, "cat /etc/derpfleet/front/haproxy.conf >> /etc/haproxy/haproxy.cfg; systemctl restart haproxy")
    proved(desk, HK1)


def test_a_switch_back_to_direct_leaves_no_fragment(desk: Desk) -> None:
    sh(desk, "systemctl disable --now --quiet haproxy")
    own = {"certificate": {"source": "self-signed"}, "relay": {"open": True}}
    desk.edit(HK1, front="direct", external=None, ports={"https": 1234, "http": 8080}, **own)
    proved(desk, HK1)
    assert sh(desk, "ls -d /etc/derpfleet/front || true") == ""
    assert "tcp/1234" in desk.listening(HK1)
    assert "tcp/81" not in desk.listening(HK1)
