"""Real tailscaled and derpprobe against the relay.

derper must pass the same tests, which proves them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.relay import generator, servers
from tests.relay import tailnet
from tests.relay.tailnet import Tailnet

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(tailnet.needed()), reason=f"needs {tailnet.needed()}"),
]


@pytest.fixture(params=["relay", "derper"])
def net(request: pytest.FixtureRequest) -> Iterator[Tailnet]:
    server = servers.relay() if request.param == "relay" else servers.derper(generator.build_derper())
    with (
        tempfile.TemporaryDirectory(prefix="tn-") as folder,
        tailnet.tailnet(Path(folder), tailnet.build(), server) as running,
    ):
        yield running


@pytest.fixture
def joined(net: Tailnet) -> Tailnet:
    """Log both nodes in, on a relay that asks headscale who may use it."""
    net.start_headscale()
    net.start_relay(
        "-verify-client-url", f"{tailnet.HEADSCALE_URL}/verify", "-verify-client-url-fail-open=false"
    )
    net.join()
    net.reach("a", "b", 20)
    return net


def test_two_nodes_that_can_only_meet_here(joined: Tailnet) -> None:
    pings = joined.must("a", "ping", "--until-direct=false", "-c", "5", "node-b")
    assert pings.count("via DERP(lab1)") == 5
    report = joined.tailscale("a", "netcheck", "--format=json")
    assert json.loads(report.stdout)["UDP"] is True
    debug = json.loads(joined.must("a", "debug", "derp", "900"))
    assert any("Successfully established a DERP connection" in line for line in debug["Info"])
    assert any("returned IPv4 STUN response" in line for line in debug["Info"])
    assert "Traceback" not in joined.log("relay")


def test_a_file_between_them(joined: Tailnet) -> None:
    content = bytes(range(256)) * 40_000  # 10 MB
    (joined.folder / "www").mkdir()
    (joined.folder / "www" / "file").write_bytes(content)
    joined.start(
        "b",
        "www",
        [
            "python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(joined.folder / "www"),
            "8000",
        ],
    )
    address = joined.must("b", "ip", "-4").strip()
    fetch = (
        "curl", "-fsS", "-m", "30", "--retry", "10", "--retry-all-errors", "--socks5-hostname",
        "127.0.0.1:1055",
    )
    joined.spaces.must(
        "a", *fetch, f"http://{address}:8000/file", "-o", str(joined.folder / "got"), timeout_s=90
    )
    assert (joined.folder / "got").read_bytes() == content


@pytest.mark.parametrize("kill", [False, True], ids=["terminated", "killed"])
def test_nodes_come_back_after_a_restart(joined: Tailnet, kill: bool) -> None:
    joined.stop_relay(kill=kill)
    joined.start_relay(
        "-verify-client-url", f"{tailnet.HEADSCALE_URL}/verify", "-verify-client-url-fail-open=false"
    )
    assert joined.reach("a", "b", 15) < 15
    assert joined.reach("b", "a", 15) < 15


def test_derpprobe_finds_nothing_wrong(net: Tailnet) -> None:
    net.start_relay()
    (net.folder / "map.json").write_text(json.dumps(tailnet.go_derp_map()))
    trust = [f"{name}={value}" for name, value in net.trust().items()]
    probe = (str(net.programs.derpprobe), "-once", "-derp-map", f"file://{net.folder}/map.json")
    done = net.spaces.run("srv", "env", *trust, *probe, timeout_s=120)
    verdicts = [
        line for line in (done.stdout + done.stderr).splitlines() if "good: " in line or "bad: " in line
    ]
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [line for line in verdicts if "bad: " in line]
    for probe_name in ("tls", "udp", "udp6", "mesh"):
        assert any(line.endswith(f"/{probe_name}") or f"/{probe_name}" in line for line in verdicts), (
            probe_name,
            verdicts,
        )
