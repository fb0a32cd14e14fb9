import asyncio
import json
import socket

import pytest

from relay.core.counts import Counts
from relay.http.http11 import Request
from relay.io import bootstrap_dns
from relay.io.bootstrap_dns import BootstrapDns
from tests.relay.httpserver import asynchronous

TABLE = {
    "control.example": ["203.0.113.1", "2001:db8::1", "203.0.113.1"],
    "log.example": ["203.0.113.2"],
    "secret.example": ["203.0.113.3"],
}


@pytest.fixture
def table(monkeypatch):
    """The loop's resolver answers from a table; a name that is not in it does not exist."""
    entries = {name: list(addresses) for name, addresses in TABLE.items()}

    async def getaddrinfo(self, host, port, **_):
        if host not in entries:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in entries[host]]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return entries


def get(dns, query=""):
    response = dns.page(Request("GET", "/bootstrap-dns" + query, (), "203.0.113.9", "203.0.113.9"))
    assert response.status == 200
    return json.loads(response.body), dict(response.headers)


@asynchronous
async def test_what_is_published_and_what_must_be_asked_for(table):
    counts = Counts()
    dns = BootstrapDns(["control.example", "log.example"], ["secret.example", "gone.example"], counts)
    assert get(dns)[0] == {}, "an object, and not nothing, before the first answer"
    await dns.refresh()
    document, headers = get(dns)
    assert {name: sorted(addresses) for name, addresses in document.items()} == {
        "control.example": ["2001:db8::1", "203.0.113.1"],
        "log.example": ["203.0.113.2"],
    }
    assert headers["Connection"] == "close" and headers["Content-Type"] == "application/json"
    assert get(dns, "?q=secret.example")[0] == {"secret.example": ["203.0.113.3"]}
    for name in ("log", "nobody", "gone"):
        assert get(dns, f"?q={name}.example")[0] == document
    assert counts == Counts(
        bootstrap_dns_requests=6,
        bootstrap_dns_unpublished_hits=1,
        bootstrap_dns_published_hits=1,
        bootstrap_dns_unpublished_misses=2,
    )


@asynchronous
async def test_a_name_that_stops_resolving_keeps_its_answer(table, caplog):
    counts = Counts()
    dns = BootstrapDns(["log.example", "never.example"], [], counts)
    await dns.refresh()
    del table["log.example"]
    await dns.refresh()
    assert get(dns, "?q=log.example")[0] == {"log.example": ["203.0.113.2"]}
    assert get(dns, "?q=never.example")[0] == {"log.example": ["203.0.113.2"]}
    assert counts.bootstrap_dns_published_misses == 1
    assert "bootstrap name does not resolve" in caplog.text


@asynchronous
async def test_names_are_resolved_again_and_again(monkeypatch):
    answers = ["203.0.113.1", "203.0.113.2"]

    async def getaddrinfo(self, host, port, **_):
        return [(0, 0, 0, "", (answers.pop(0), port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(bootstrap_dns, "REFRESH_S", 0)
    dns = BootstrapDns(["log.example"], [], Counts())
    with pytest.raises(IndexError):  # asked a third time
        await dns.keep_fresh()
    assert get(dns)[0] == {"log.example": ["203.0.113.2"]}
