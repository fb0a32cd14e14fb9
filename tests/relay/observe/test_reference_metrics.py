"""The metrics of a real derper: ours have the same names, or a reason to differ."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from bench.relay import generator, servers
from inventory.checkout import CHECKOUT
from tests.relay.live import Live

# Go's runtime, its allocator and its machine; ours has Python's process_* instead.
OF_GO = re.compile(
    r"go_|goamd64_|memstats|derp_memstats|goroutines|promhttp_"
    r"|process_(network|virtual_memory_max)|node_boot_time"
)
# relay/README.md, "Seeing it", says why.
LEFT_OUT = {
    "derp_buffered_write_frames",
    "derp_mesh_update_batch_size",
    "derp_mesh_update_loop_count",
    "bootstrap_dns_queried_domains",
    "bootstrap_dns_unpublished_percent_misses",
    "stun_no_local_addr",
}


def scraped(server: servers.Server, folder: Path) -> tuple[dict[str, str], set[str]]:
    """Return types by name, and the names with labels of all samples, after a little traffic."""
    folder.mkdir()
    with servers.running(server, folder, tls=False) as running:
        live = Live(running)
        with live.connect() as alice, live.connect() as bob:
            alice.send(bob.key, b"hello")
            bob.receive()
            time.sleep(0.2)
            with urllib.request.urlopen(f"http://{running.address}/debug/varz", timeout=10) as answer:
                text = answer.read().decode()
    samples = {line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")}
    return dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.M)), samples


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[tuple[dict[str, str], set[str]], tuple[dict[str, str], set[str]]]:
    folder = tmp_path_factory.mktemp("metrics")
    return scraped(servers.derper(generator.build_derper()), folder / "derper"), scraped(
        servers.relay(), folder / "ours"
    )


def test_every_metric_of_derper_is_here_with_its_type_or_left_out_on_purpose(both):
    (derpers, _), (ours, _) = both
    wanted = {name: kind for name, kind in derpers.items() if not OF_GO.match(name)}
    assert wanted.keys() - ours.keys() == LEFT_OUT
    assert {name: ours[name] for name in wanted.keys() - LEFT_OUT} == {
        name: wanted[name] for name in wanted.keys() - LEFT_OUT
    }
    readme = (CHECKOUT / "relay" / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in LEFT_OUT)


def test_every_label_of_derper_is_here(both):
    (_, derpers), (ours, samples) = both
    labelled = {
        sample
        for sample in derpers
        if sample.partition("{")[0] in ours and "{" in sample and not sample.startswith("version")
    }
    assert labelled
    assert labelled <= samples
