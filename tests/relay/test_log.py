import io
import json
import logging
import os
import socket
import struct

import pytest

from relay import log
from relay.log import HoldBack, JournalHandler, Log, pack_journal_field


@pytest.fixture(autouse=True)
def root_logger_stays_as_it_was():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.level = before[0], before[1]


def lines(form, write):
    out = io.StringIO()
    log.set_up(form, stream=out, environ={}, level=logging.DEBUG)
    write(Log("server"))
    return out.getvalue().splitlines()


def test_plain():
    def write(server):
        server.info(
            "client refused",
            reason="not_in_allow_file",
            key="nodekey:ab",
            note="two words",
            empty="",
            n=3,
            text='a"b',
        )
        server.warning("odd\nmessage 100%")

    assert lines("plain", write) == [
        'info client refused reason=not_in_allow_file key=nodekey:ab note="two words" empty="" n=3 '
        'text="a\\"b"',
        "warning odd\\nmessage 100%",
    ]


def test_no_field_can_forge_a_line():
    (line,) = lines("plain", lambda server: server.error("x", name="a\ninfo client admitted key=evil\x1b[2J"))
    assert line == 'error x name="a\\ninfo client admitted key=evil\\u001b[2J"'


def test_json():
    (line,) = lines(
        "json", lambda server: server.debug("hello", time="forged", address="::1", big="x" * 5000)
    )
    record = json.loads(line)
    assert (
        record["time"].endswith("Z")
        and record["level"] == "debug"
        and record["part"] == "server"
        and record["message"] == "hello"
    )
    assert record["address"] == "::1" and len(record["big"]) == log.MAX_VALUE


def test_others_logging_and_exceptions_go_the_same_way():
    def write(_):
        try:
            raise OSError("no route")
        except OSError:
            logging.getLogger("asyncio").exception("task %s failed", 7)

    assert lines("plain", write) == ['error task 7 failed exception="OSError: no route"']


def test_level():
    out = io.StringIO()
    log.set_up("auto", stream=out, environ={})
    Log("x").debug("no")
    Log("x").info("yes")
    assert out.getvalue() == "info yes\n"


def test_repetition_is_held_back_and_counted():
    hold = HoldBack()

    def record(second, message="m"):
        made = logging.LogRecord("relay.x", logging.INFO, "", 0, message, None, None)
        made.created = second
        return made, hold.filter(made)

    assert [record(0.0)[1] for _ in range(30)] == [True] * 20 + [False] * 10
    assert record(0.0, "another")[1]
    made, passed = record(1.5)
    assert passed and made.suppressed == 10 and log.fields_of(made) == {"suppressed": "10"}
    assert not record(1.6)[1]
    for i in range(300):
        record(2.0, f"m{i}")
    assert len(hold._buckets) <= 256


@pytest.fixture
def journal(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "journal"))
        s.settimeout(5)
        monkeypatch.setattr(log, "JOURNAL_SOCKET", str(tmp_path / "journal"))
        yield s


def test_journal_fields(journal):
    fallback = logging.StreamHandler(io.StringIO())
    handler = JournalHandler(fallback, log.JOURNAL_SOCKET)
    try:
        record = logging.LogRecord("relay.server", logging.WARNING, "", 0, "client refused", None, None)
        record.fields = {"reason": "too_many_handshakes", "note": "a\nb"}
        handler.emit(record)
        assert journal.recv(4096) == (
            b'MESSAGE=client refused reason=too_many_handshakes note="a\\nb"\n'
            b"PRIORITY=4\nSYSLOG_IDENTIFIER=derp-relay\nLOGGER=relay.server\n"
            b"DERP_REASON=too_many_handshakes\nDERP_NOTE\n" + struct.pack("<Q", 3) + b"a\nb\n"
        )
    finally:
        handler.close()
    assert fallback.stream.getvalue() == ""


def test_without_a_journal_nothing_is_lost(tmp_path):
    out = io.StringIO()
    log.set_up("journal", stream=out, environ={})
    (handler,) = logging.getLogger().handlers
    handler._address = str(tmp_path / "nowhere")
    Log("x").info("still here", a=1)
    assert out.getvalue() == "info still here a=1\n"


def test_auto_takes_the_journal_where_systemd_connected_it(journal, tmp_path):
    with (tmp_path / "stderr").open("w") as stream:
        status = os.fstat(stream.fileno())
        log.set_up("auto", stream=stream, environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        (handler,) = logging.getLogger().handlers
        assert isinstance(handler, JournalHandler)
        handler.close()
        log.set_up("auto", stream=stream, environ={"JOURNAL_STREAM": "1:1"})
        assert not isinstance(logging.getLogger().handlers[0], JournalHandler)


def test_an_unknown_level_and_bad_text_still_make_a_field():
    assert pack_journal_field("A", "\ud800") == b"A=?\n"
