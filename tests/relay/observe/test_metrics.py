import re
import shutil
import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from inventory.checkout import CHECKOUT
from relay.core.stats import Stats, Tally, snapshot
from relay.observe import metrics
from relay.observe.metrics import make_registry, render, series_of
from tests.relay.clients import Room

# Section 10 of the protocol notes, without what only Go's runtime has.
DERPERS = re.findall(
    r"\w+",
    """
    derp_current_connections derp_current_home_connections derp_current_notideal_connections
    derp_clients_total derp_clients_local derp_clients_remote derp_watchers
    derp_current_dup_client_keys derp_current_dup_client_conns derp_total_dup_client_conns
    derp_accepts derp_bytes_received derp_bytes_sent derp_packets_received derp_packets_sent
    derp_packets_received_kind derp_packets_forwarded_out derp_packets_forwarded_in
    derp_peer_gone_disconnected_frames derp_peer_gone_not_here_frames derp_home_moves_in
    derp_home_moves_out derp_got_ping derp_sent_pong derp_unknown_frames derp_multiforwarder_created
    derp_multiforwarder_deleted derp_packet_forwarder_delete_other_value derp_sclient_write_timeouts
    derp_average_queue_duration_ms derp_packets_dropped derp_bytes_dropped derp_websocket_accepts
    stun_requests stun_addrfamily tls_listener_accepted_connections
    tls_listener_rejected_connections version
    """,
)


def scrape(read):
    return render(make_registry(read).collect()).decode()


def room_stats():
    room = Room()
    room.say(room.join(1), 9, b"lost")
    return snapshot(room.switch, Tally(), {"process_start_unix_time": 1_790_000_000.5}, [])


def test_derpers_names_are_all_there_and_the_text_is_valid():
    text = scrape(room_stats)
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert set(DERPERS) <= names
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {"derp_packets_dropped", "process_cpu_seconds"} <= set(
        families
    ) and "process_resident_memory_bytes" in families
    assert len(names) == text.count("# TYPE"), "each once"


def test_values_types_and_labels():
    text = scrape(room_stats)
    for line in (
        "# TYPE derp_packets_received counter",
        "derp_packets_received 1",
        "# TYPE derp_current_connections gauge",
        "derp_current_connections 1",
        "derp_clients_total 1",
        'derp_packets_dropped{reason="unknown_dest",kind="other"} 1',
        'derp_packets_dropped{reason="queue_tail",kind="disco"} 0',
        'derp_packets_received_kind{kind="other"} 1',
        'stun_requests{disposition="not_stun"} 0',
        "process_start_unix_time 1790000000.5",
        "# TYPE process_cpu_seconds_total counter",
        "relay_consistent 1",
    ):
        assert line in text.splitlines(), line


def test_a_label_cannot_break_the_text():
    nasty = 'a"b\\c\nd'
    (family,) = [
        family
        for family in text_string_to_metric_families(scrape(lambda: Stats(labelled={"closes": {nasty: 2}})))
        if family.name == "relay_closes"
    ]
    assert family.samples[0].labels == {"reason": nasty} and family.samples[0].value == 2


def test_problems_show():
    assert "relay_consistent 0" in scrape(lambda: Stats(problems=["odd"]))


def test_numbers_are_written_as_prometheus_reads_them():
    assert [metrics._number(v) for v in (3, 3.0, 0.5, float("inf"), float("-inf"), float("nan"), True)] == [
        "3", "3", "0.5", "+Inf", "-Inf", "NaN", "1",
    ]


def test_nothing_is_read_before_a_scrape():
    make_registry(lambda: 1 / 0)


def test_unknown_figures_are_left_out():
    stats = Stats(labelled={"surprise": {"x": 1}}, gauges={"surprise": 1})
    assert not any("surprise" in series.name for series in series_of(stats))


def test_a_release_says_which_one_runs(tmp_path, monkeypatch):
    """The link moves at the next deploy, while the former release still runs."""
    assert "relay_release" not in scrape(Stats)
    releases = tmp_path / "releases"
    shutil.copytree(CHECKOUT / "relay", releases / "fedcba9876543210" / "relay")
    (tmp_path / "current").symlink_to("releases/fedcba9876543210")
    words = "import sys; sys.path.insert(0, 'current'); import relay; print(relay.__release__)"
    argv = [sys.executable, "-c", words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "fedcba9876543210\n"
    monkeypatch.setattr("relay.observe.metrics.__release__", "fedcba9876543210")
    assert 'relay_release{id="fedcba9876543210"} 1' in scrape(Stats)
