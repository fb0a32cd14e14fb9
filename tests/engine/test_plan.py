from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.health import Http, Watch
from engine.plan import PlanError, compile_plan, revealed, sha256
from engine.resource import Command, Container, Directory, File, Resource, Service
from inventory.secrets import Secret


def directory(name: str, *needs: str) -> Directory:
    return Directory(path=f"/{name}", needs=tuple(f"directory:/{need}" for need in needs), role="r")


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sets(st.integers(0, 30), max_size=4)),
        max_size=30,
        unique_by=lambda pair: pair[0],
    )
)
def test_order_respects_needs_and_is_stable(graph: list[tuple[int, set[int]]]) -> None:
    known = {number for number, _ in graph}
    # Needs point to smaller numbers only: no circle, and any order of declaration is allowed.
    resources = [
        directory(str(number), *(str(need) for need in sorted(needs & known) if need < number))
        for number, needs in graph
    ]
    plan = compile_plan(resources, mode="check")
    position = {resource.id: index for index, resource in enumerate(plan.resources)}
    assert sorted(position) == sorted(resource.id for resource in resources)
    assert all(position[need] < position[resource.id] for resource in resources for need in resource.needs)
    assert compile_plan(plan.resources, mode="check").specs == plan.specs


def test_a_circle_is_named() -> None:
    with pytest.raises(PlanError) as error:
        compile_plan([directory("a", "b"), directory("b", "c"), directory("c", "a")], mode="apply")
    assert error.value.why == "directory:/a -> directory:/b -> directory:/c -> directory:/a"


def test_two_owners_of_one_path_are_both_named() -> None:
    with pytest.raises(PlanError, match="file:/a of role two and directory:/a of role r own the same thing"):
        compile_plan([directory("a"), File(path="/a", content=b"", role="two")], mode="apply")


def test_a_need_that_no_role_gives_is_named() -> None:
    with pytest.raises(PlanError, match="directory:/a of role r needs directory:/b, which no role gives"):
        compile_plan([directory("a", "b")], mode="apply")


def test_triggers_come_first() -> None:
    service = Service(unit="x.service", restart_on=("file:/etc/x",))
    plan = compile_plan([service, File(path="/etc/x", content=b"1")], mode="apply")
    assert [resource.id for resource in plan.resources] == ["file:/etc/x", "service:x.service"]


def test_only_keeps_what_is_needed_and_forgets_strangers() -> None:
    resources: list[Resource] = [
        directory("etc"),
        File(path="/etc/x", content=b"1", needs=("directory:/etc",), role="x"),
        File(path="/etc/y", content=b"1", role="y"),
        Service(unit="x", restart_on=("file:/etc/x", "file:/etc/y"), needs=("file:/etc/x",), role="x"),
    ]
    plan = compile_plan(resources, mode="apply", only=["role:x"])
    assert [resource.id for resource in plan.resources] == ["directory:/etc", "file:/etc/x", "service:x"]
    assert plan.specs[-1]["restart_on"] == ["file:/etc/x"]
    assert plan.left_out == ()
    with pytest.raises(PlanError) as error:
        compile_plan(resources, mode="apply", only=["role:z"])
    assert error.value.why == "the roles are role:r, role:x, role:y"


def test_only_says_what_of_the_rest_acts_on_its_changes() -> None:
    resources: list[Resource] = [
        File(path="/etc/x", content=b"1"),
        File(path="/etc/y", content=b"1"),
        Service(unit="x", restart_on=("file:/etc/x", "file:/etc/y")),
        Service(unit="y", reload_on=("file:/etc/y",)),
        Command(title="x", argv=("true",), on_change=("file:/etc/x",)),
    ]
    plan = compile_plan(resources, mode="apply", only=["file:/etc/x"])
    assert json.loads(json.dumps(plan.message()))["left_out"] == [
        {"id": "service:x", "restart_on": ["file:/etc/x"], "reload_on": []},
        {"id": "command:x", "on_change": ["file:/etc/x"]},
    ]
    assert compile_plan(resources, mode="apply").left_out == ()


def test_contents_travel_by_hash_and_never_in_the_plan(tmp_path: Path) -> None:
    shipped = tmp_path / "release.tar"
    shipped.write_bytes(b"bytes")
    files = [
        File(path="/a", content=b"secret", secret=True),
        File(path="/b", content=b"secret"),
        File(path="/c", content=shipped),
    ]
    plan = compile_plan(files, mode="apply")
    message = json.dumps(plan.message())
    assert "secret" not in message.replace('"secret": true', "").replace('"secret": false', "")
    assert plan.blobs == {sha256(b"secret"): b"secret", sha256(b"bytes"): shipped}


def test_a_secret_is_unwrapped_at_the_wire_and_shown_nowhere_before() -> None:
    key = File(path="/key", content=Secret("line one\ns3cret"), mode="0600", secret=True)
    plan = compile_plan([key], mode="apply")
    digest = sha256(b"line one\ns3cret\n")
    assert plan.specs[0]["content_sha256"] == digest
    assert revealed(plan.blobs[digest]) == b"line one\ns3cret\n"
    assert "s3cret" not in json.dumps(plan.message()) + repr(plan) + str(plan.blobs) + repr(key)


def test_a_secret_that_would_be_shown_is_refused() -> None:
    with pytest.raises(TypeError, match="file:/key holds a secret and would show it"):
        File(path="/key", content=Secret("s3cret"), mode="0600")


def test_the_same_state_has_the_same_id_in_check_and_apply() -> None:
    resources = [directory("a")]
    assert compile_plan(resources, mode="check").id == compile_plan(resources, mode="apply").id


def test_health_conditions_name_their_kind() -> None:
    service = Service(
        unit="x",
        healthy=(Http(url="http://127.0.0.1/"),),
        watch=(Watch(url="https://a/", connect="127.0.0.1:443"),),
    )
    spec = compile_plan(
        [service, Container(container="c"), Command(title="t", argv=("true",), creates="/x")], mode="check"
    ).specs[0]
    assert spec["healthy"][0]["kind"] == "http"
    assert spec["watch"] == [{"url": "https://a/", "connect": "127.0.0.1:443", "proxy_header": False}]
