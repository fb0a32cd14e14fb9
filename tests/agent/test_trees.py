"""Trees and contents: archives that are hostile, damaged or cut, and power cuts while they come."""

from __future__ import annotations

import base64
import tarfile
import zlib
from io import BytesIO
from typing import Any

import pytest

from engine import contents
from engine.plan import sha256
from engine.resource import File, Tree
from inventory.errors import DerpfleetError
from tests.agent.driver import OnStage, failure
from tests.agent.generations import deploy
from tests.agent.plans import relay_host

LOG_SYNC_AND_RENAME = """
import os
def logged(name):
    real = getattr(os, name)
    def call(*arguments):
        os.makedirs("/var/fake", exist_ok=True)
        paths = [each for each in arguments if not isinstance(each, int)]
        paths += [os.readlink("/proc/self/fd/%d" % each) for each in arguments if isinstance(each, int)]
        with open("/var/fake/log", "a") as log:
            log.write(" ".join([name] + paths) + chr(10))
        return real(*arguments)
    setattr(os, name, call)
for name in ("sync", "fsync", "rename"):
    logged(name)
"""


def test_a_tree_is_replaced_as_a_whole(on_stage: OnStage) -> None:
    def archive(*names: str) -> bytes:
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
        return packed.getvalue()

    agent = on_stage()
    agent.run([Tree(path="/srv/tree", archive=archive("a", "b"))])
    assert agent.run([Tree(path="/srv/tree", archive=archive("b", "c"))]).changed == ["tree:/srv/tree"]
    assert sorted(path.name for path in (agent.stage.root / "srv/tree").glob("[!.]*")) == ["b", "c"]


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def packed(**files: str) -> bytes:
    """Return an archive of these files: contents by name."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            tar.addfile(member(name, size=len(text)), BytesIO(text.encode()))
    return out.getvalue()


WHEEL, OTHER = packed(wheel="w"), packed(other="o")


def test_a_tree_has_the_files_of_its_own_archive_and_of_those_that_it_shares(on_stage: OnStage) -> None:
    agent = on_stage()
    one = Tree(path="/srv/one", archive=packed(main="1"), shared=(WHEEL, OTHER))
    two = Tree(path="/srv/two", archive=packed(main="2"), shared=(WHEEL,))
    assert agent.run([one, two]).changed == ["tree:/srv/one", "tree:/srv/two"]
    there = {name: sorted(path.name for path in (agent.stage.root / "srv" / name).glob("[!.]*"))
             for name in ("one", "two")}
    assert there == {"one": ["main", "other", "wheel"], "two": ["main", "wheel"]}
    assert agent.run([one, two]).changed == []
    (agent.stage.root / "srv/two/wheel").unlink()
    assert agent.run([one, two]).changed == ["tree:/srv/two"]


def test_a_new_release_does_not_bring_what_it_shares_with_the_one_in_force(
    on_stage: OnStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, events, ahead = on_stage(), list[Any](), list[Any]()
    real = contents.ahead
    monkeypatch.setattr(contents, "ahead", lambda *given: ahead.append(real(*given)) or ahead[-1])

    def release(number: int, *shared: bytes) -> list[Tree]:
        return [Tree(path=f"/srv/{number}", archive=packed(main=str(number)), shared=shared)]

    def asked_for() -> int:
        return sum(len(event["blobs"]) for event in events if event["event"] == "want")

    deploy(agent, release(1, WHEEL, OTHER), on_event=events.append)
    assert asked_for() == 3
    second = release(2, WHEEL, OTHER)  # an archive of now is another one in a second
    deploy(agent, [*second, File(path="/srv/x", content=b"x" * contents.AHEAD_MAX)])
    agent.run([File(path="/srv/y", content=b"y")])  # a run without trees keeps them
    events.clear()
    deploy(agent, release(3, WHEEL), on_event=events.append)
    assert (agent.stage.root / "srv/3/wheel").read_text() == "w"
    backups = agent.stage.root / "var/lib/derpfleet/backups"
    there = [(backups / sha256(wheel)).exists() for wheel in (WHEEL, OTHER)]
    assert (asked_for(), there) == (0, [True, False])
    assert len(ahead[-1]) == 1, "its own archive comes with the plan"
    assert deploy(agent, second).changed == []
    assert ahead[-1] == {}, "a former release is on the host"
    deploy(agent, [File(path="/srv/y", content=b"z")])
    assert not (backups / sha256(WHEEL)).exists(), "nothing needs it any more"


@pytest.mark.parametrize(
    "damage",
    ["rm srv/relay/relay/server.py", "chmod 0 srv/relay/relay", "truncate -s 0 srv/relay/relay/__init__.py",
     "mv srv/relay/relay srv/relay/other", "ln -sf /etc/passwd srv/relay/relay/server.py",
     "chown 12:12 srv/relay/relay/server.py", "rm srv/relay/.derpfleet-sha256", "rm -r srv/relay"],
)
def test_a_damaged_tree_is_replaced(on_stage: OnStage, damage: str) -> None:
    agent, tree = on_stage(), relay_host()[5]
    agent.run([tree])
    (agent.stage.root / "srv/relay/relay/__pycache__").mkdir()  # compiled by us
    assert agent.run([tree]).changed == []
    agent.stage.run("sh", "-c", f"cd / && {damage}")
    assert agent.run([tree], mode="check").changed == ["tree:/srv/relay"]
    assert agent.run([tree]).changed == ["tree:/srv/relay"]
    assert (agent.stage.root / "srv/relay/relay/server.py").read_text() == "relay/server.py"
    assert agent.run([tree]).changed == []


HOSTILE = {
    "an absolute name": member("/etc/relay.evil"),
    "a name that climbs": member("a/../../relay.evil"),
    "a link": member("a", tarfile.SYMTYPE, linkname="/etc"),
    "a hard link": member("a", tarfile.LNKTYPE, linkname="/etc/passwd"),
    "a device": member("a", tarfile.CHRTYPE, devmajor=1, devminor=1),
    "a pipe": member("a", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("evil", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_that_leads_elsewhere_leaves_the_tree_as_it_is(
    evil: tarfile.TarInfo, on_stage: OnStage
) -> None:
    def archive(*members: tarfile.TarInfo) -> bytes:
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for each in members:
                tar.addfile(each)
        return packed.getvalue()

    agent = on_stage()
    assert agent.run([Tree(path="/srv/tree", archive=archive(member("good")))]).ok
    hostile = archive(member("new"), evil, member("a/passwd"))
    _, what, why = failure(agent.run([Tree(path="/srv/tree", archive=hostile)]))
    assert what == "/srv/tree: an archive that would write elsewhere"
    assert evil.name in why
    assert [path.name for path in (agent.stage.root / "srv/tree").glob("[!.]*")] == ["good"]
    assert not (agent.stage.root / "etc/relay.evil").exists()
    assert not list((agent.stage.root / "srv/tree.derpfleet-new").glob("*"))


@pytest.mark.parametrize(
    ("size", "problem"),
    [((1 << 30) + 1, "an archive of more than 1024 MiB"), (1 << 20, "the archive cannot be read")],
)
def test_an_archive_that_would_fill_the_disk_or_is_cut_is_refused(
    size: int, problem: str, on_stage: OnStage
) -> None:
    head = member("a", size=size).tobuf()
    _, what, _ = failure(on_stage().run([Tree(path="/srv/tree", archive=head)]))
    assert what == f"/srv/tree: {problem}"


def test_a_tree_is_on_disk_before_it_is_there(on_stage: OnStage) -> None:
    """A power cut takes, in any order, the files that are not yet on disk.

    The mark must not outlive the others.
    """
    agent = on_stage()
    agent.extra = LOG_SYNC_AND_RENAME
    assert agent.run(relay_host()[5:6]).changed == ["tree:/srv/relay"]
    log = agent.log()
    assert log.index("sync") < log.index("rename /srv/relay.derpfleet-new /srv/relay")


def test_a_content_is_on_disk_before_it_is_taken_for_one(on_stage: OnStage) -> None:
    agent, incoming = on_stage(), f"/var/lib/derpfleet/incoming/{sha256(b'x')}"
    agent.extra = LOG_SYNC_AND_RENAME
    assert agent.run([File(path="/srv/x", content=b"x")]).ok
    log = agent.log()
    assert log.index(f"fsync {incoming}.part") < log.index(f"rename {incoming}.part {incoming}")


def test_a_content_that_a_power_cut_emptied_is_asked_for_anew(on_stage: OnStage) -> None:
    agent, wanted = on_stage(), [File(path="/srv/x", content=b"x")]
    incoming = agent.stage.root / "var/lib/derpfleet/incoming"
    incoming.mkdir(parents=True)
    (incoming / sha256(b"x")).write_bytes(b"")
    assert agent.run(wanted).failures == []
    assert (agent.stage.root / "srv/x").read_bytes() == b"x"


def test_a_content_that_an_earlier_run_left_whole_is_not_asked_for(on_stage: OnStage) -> None:
    agent, events = on_stage(), []
    incoming = agent.stage.root / "var/lib/derpfleet/incoming"
    incoming.mkdir(parents=True)
    (incoming / sha256(b"x")).write_bytes(b"x")
    assert agent.run([File(path="/srv/x", content=b"x")], on_event=events.append).changed == ["file:/srv/x"]
    assert [event["blobs"] for event in events if event["event"] == "want"] == [[]]


@pytest.mark.parametrize("came", [base64.b64encode(zlib.compress(b"y")).decode(), "no base64!", "AAAA"])
def test_a_content_that_comes_damaged_with_the_plan_is_refused(
    on_stage: OnStage, monkeypatch: pytest.MonkeyPatch, came: str
) -> None:
    agent = on_stage()
    monkeypatch.setattr("engine.contents.ahead", lambda *_: {sha256(b"x"): came})
    with pytest.raises(DerpfleetError, match="a content cannot be kept"):
        agent.run([File(path="/srv/x", content=b"x")])
    assert not (agent.stage.root / "srv/x").exists()
    assert list((agent.stage.root / "var/lib").glob("derpfleet/incoming/*")) == []
