import json
import stat

import pytest

from relay.keys import node_key
from relay.keys.node_key import KeyFileError, NodeKey, parse_key_file, read_mesh_key, read_or_create_key

# The matching pair of Tailscale's own tests, and the S key of the protocol notes' vectors.
PAIRS = [
    (
        "40ab1b58e9076c7a4d9d07291f5edf9d1aa017eb949624ba683317f48a640369",
        "50d20b455ecf12bc453f83c2cfdb2a24925d06cf2598dcaa54e91af82ce9f765",
    ),
    (
        "0002030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f60",
        "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c",
    ),
]


@pytest.mark.parametrize("private, public", PAIRS)
@pytest.mark.parametrize(
    "form",
    [
        '{"PrivateKey": "privkey:%s"}',
        '{\n\t"PrivateKey": "privkey:%s"\n}',
        '{"privatekey":"privkey:%s","x":1}',
    ],
)
def test_a_derper_key_file_keeps_its_public_key(private, public, form):
    key = parse_key_file((form % private).encode())
    assert key.public.hex() == public and key.private.hex() == private
    assert parse_key_file((form % private.upper()).encode()) == key


def test_the_private_half_is_not_in_repr():
    key = NodeKey.of(bytes.fromhex(PAIRS[0][0]))
    assert PAIRS[0][0] not in repr(key) and "private" not in repr(key)


def test_render_is_what_derper_writes():
    key = NodeKey.of(bytes.fromhex(PAIRS[0][0]))
    assert node_key.render_key_file(key) == b'{\n\t"PrivateKey": "privkey:%s"\n}' % PAIRS[0][0].encode()


def test_new_keys_are_clamped():
    for _ in range(50):
        private = NodeKey.generate().private
        assert len(private) == 32 and private[0] & 7 == 0 and private[31] & 0xC0 == 0x40


def test_created_once_then_read(tmp_path):
    path = tmp_path / "var" / "derper.key"
    first = read_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"PrivateKey": f"privkey:{first.private.hex()}"}
    assert read_or_create_key(str(path)) == first
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"


def test_a_file_made_meanwhile_wins(tmp_path):
    path = tmp_path / "k"
    path.write_bytes(b"theirs")
    node_key.write_new(path, b"ours", 0o600)
    assert path.read_bytes() == b"theirs" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", 'has no "PrivateKey"'),
        ('{"PrivateKey": 1}', 'has no "PrivateKey"'),
        ('{"PrivateKey": "nodekey:00"}', '"PrivateKey" does not start with privkey:'),
        ('{"PrivateKey": "privkey:c0ffee"}', '"PrivateKey" has 6 hex digits, not 64'),
        ('{"PrivateKey": "privkey:%s"}' % ("g" * 64), '"PrivateKey" is not hexadecimal'),
        ('{"PrivateKey": "privkey:%s"}' % ("a " * 32), '"PrivateKey" is not hexadecimal'),
        ('{"PrivateKey": "privkey:%s"}' % ("0" * 64), '"PrivateKey" is all zero'),
    ],
)
def test_a_bad_key_file_is_named_and_left_alone(tmp_path, text, says):
    path = tmp_path / "derper.key"
    path.write_text(text)
    with pytest.raises(KeyFileError) as e:
        read_or_create_key(path)
    assert str(path) in str(e.value) and says in str(e.value)
    assert path.read_text() == text


def test_no_message_repeats_the_key(tmp_path):
    path = tmp_path / "derper.key"
    path.write_text('{"PrivateKey": "privkey:%s"}' % (PAIRS[0][0][:-1] + "x"))
    with pytest.raises(KeyFileError) as e:
        read_or_create_key(path)
    assert PAIRS[0][0][:16] not in str(e.value)


def test_a_directory_is_no_key_file(tmp_path):
    with pytest.raises(KeyFileError, match="Is a directory"):
        read_or_create_key(tmp_path)


def test_mesh_key(tmp_path):
    path = tmp_path / "mesh"
    path.write_text("  " + "0123456789ABCDEF" * 4 + "\n")
    assert read_mesh_key(path) == bytes.fromhex("0123456789abcdef" * 4)


@pytest.mark.parametrize(
    "data, says",
    [
        (b"00", "has 2 hex digits, not 64"),
        (b"", "has 0 hex"),
        (b"\xff" * 64, "is not text"),
        (b"x" * 64, "is not hex"),
    ],
)
def test_bad_mesh_key(tmp_path, data, says):
    path = tmp_path / "mesh"
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match=says):
        read_mesh_key(path)


def test_missing_mesh_key(tmp_path):
    with pytest.raises(KeyFileError, match="No such file"):
        read_mesh_key(tmp_path / "nowhere")
