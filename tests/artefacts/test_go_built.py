"""Go programs for hosts of another architecture: built, and inspected."""

from __future__ import annotations

import struct
import tarfile

import pytest

from artefacts.binary import build_binary
from artefacts.programs import DERPER, TAILSCALED, Binary
from inventory.checkout import CACHE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]  # a cold build takes minutes
EXECUTABLE = 2
MACHINES = {"x86_64": 62, "aarch64": 183}  # elf(5), EM_X86_64 and EM_AARCH64
INTERPRETER = 3  # a program header that names a dynamic linker


@pytest.mark.parametrize("arch", MACHINES)
@pytest.mark.parametrize("binary", [DERPER, TAILSCALED], ids=lambda binary: binary.name)
def test_a_program_is_for_its_machine_and_needs_no_library(binary: Binary, arch: str) -> None:
    assert arch in binary.architectures
    release = build_binary(binary, arch, cache=CACHE, progress=print)
    with tarfile.open(release.path) as tar:
        [member] = tar.getmembers()
        file = tar.extractfile(member)
        assert file and (member.name, member.mode) == (binary.program, 0o755)
        content = file.read()
    assert content[:6] == b"\x7fELF\x02\x01"  # 64 bits, the lower byte first
    assert struct.unpack_from("<HH", content, 16) == (EXECUTABLE, MACHINES[arch])
    assert INTERPRETER not in program_headers(content)


def program_headers(content: bytes) -> list[int]:
    """Return the types of an ELF file's program headers."""
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    return [struct.unpack_from("<I", content, offset + number * size)[0] for number in range(count)]
