"""`compile_absent` covers every resource of every plan, or the resource is meant to stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

import roles
from engine.facts import Facts, FileFact, Output
from engine.plan import compile_plan
from engine.policy import Selinux
from engine.resource import (
    Absent,
    Command,
    Conffile,
    Container,
    Directory,
    File,
    Image,
    NftTable,
    OpenPorts,
    Package,
    Resource,
    Service,
    SupervisorProgram,
)
from inventory.model import Host
from roles.certificate import acme
from tests.roles.cases import deployable, load, shipment
from tests.support.facts import DEBIAN_12

# Packages and their parts, which other programs of the host may use by now.
STAY = {
    "directory:/etc/apt/keyrings",  # apt's own from Debian 12 on
    "directory:/etc/pki/rpm-gpg",  # the base system's
    "directory:/etc/docker",  # while daemon.json says something of others
    "service:chronyd.service",
    "service:cron.service",
    "service:crond.service",
    "service:docker.service",
    "service:supervisor.service",
    "service:supervisord.service",
    "service:nginx.service",
    "service:nginx.service/gone",
    "service:nginx.service/http",
    "service:systemd-timesyncd.service",
}
# Commands whose files are covered because they are in a folder that goes.
COMMANDS = {
    "certificate",  # files: certificate.absent, see test_certbot below
    "https server put back",
    "https server taken out",
    "relay's copy of the certificate",
    "served certificate",  # reloads
    "tailnet joined",  # by "tailnet left"
}
HK1 = {"name": "hk1", "domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}}


def a_file(content: str) -> FileFact:
    return FileFact(content=content, sha256="", mode="0644", owner="root", group="root")


def deployed(facts: Facts, resources: Iterable[Resource]) -> Facts:
    """Return the facts after a deploy: files, packages, and a valid configuration of nginx."""
    there = [resource for resource in resources if isinstance(resource, File)]
    texts = {r.path: r.content.decode() if isinstance(r.content, bytes) else "" for r in there}
    files = {path: a_file(text) for path, text in texts.items()}
    nginx = facts.commands.get("nginx")
    valid = {} if nginx and nginx.status == 0 else {"nginx": Output(status=0, stdout="", stderr="")}
    new = {
        name: f"/usr/sbin/{name}"
        for r in resources
        if isinstance(r, Package) and (name := r.package) == "nginx"
    }
    return replace(
        facts,
        files={**facts.files, **files},
        commands={**facts.commands, **valid},
        tools={**facts.tools, **new},
    )


def covers(gone: Resource, resource: Resource) -> bool:
    """Whether `gone` removes the resource."""
    path = resource.owned_path()
    if isinstance(gone, Absent | NftTable):
        return bool(path) and PurePosixPath(path).is_relative_to(gone.path)
    if isinstance(gone, Conffile | Directory | File):  # shared, or empty by then
        return path == gone.path
    if isinstance(gone, OpenPorts):
        return gone.id == resource.id and not gone.ports
    if isinstance(gone, Image):
        return isinstance(resource, Image) and resource.ref.partition(":")[0] in (
            gone.ref,
            gone.ref.partition(":")[0],
        )
    if isinstance(gone, Service) and isinstance(resource, Service):
        return (gone.unit, gone.enabled, gone.running) == (resource.unit, False, False)
    if isinstance(gone, Selinux):
        return gone.id == resource.id and not gone.booleans + gone.ports
    if isinstance(gone, Container | SupervisorProgram):
        return gone.id == resource.id and not gone.running
    return gone.id == resource.id and not getattr(gone, "present", True)


def leftovers(host: Host, facts: Facts, resources: list[Resource]) -> list[str]:
    """Return the ids that `compile_absent` does not cover."""
    gone = roles.compile_absent(host, deployed(facts, resources))
    compile_plan(gone, mode="check")  # no contradiction, no circle
    left = [
        resource
        for resource in resources
        if not isinstance(resource, Package | Absent)
        and resource.id not in STAY
        and not any(covers(one, resource) for one in gone)
    ]
    return [
        resource.id
        for resource in left
        if not (
            isinstance(resource, Command)
            and (resource.title in COMMANDS or in_a_folder_that_goes(resource, gone))
        )
    ]


def in_a_folder_that_goes(command: Command, gone: list[Resource]) -> bool:
    return any(
        isinstance(one, Absent) and PurePosixPath(command.creates).is_relative_to(one.path) for one in gone
    )


@pytest.mark.parametrize("name", deployable())
def test_every_resource_of_a_plan_goes_or_is_meant_to_stay(name: str) -> None:
    host, site, facts = load(name)
    resources = roles.compile_host(host, site, facts, shipment(host))
    left = leftovers(host, facts, resources)
    # Beside other sites nginx keeps the configuration that they are served with.
    assert set(left) <= ({"file:/etc/nginx/nginx.conf"} if name.startswith("shared") else set())


@pytest.mark.parametrize("name", deployable())
def test_every_variant_goes_whatever_is_chosen(name: str) -> None:
    """A changed site file takes off what an earlier one had put there."""
    host, _, facts = load(name)
    ids = {resource.id for resource in roles.compile_absent(host, facts)}
    assert ids >= {
        "absent:/etc/cron.d/derpfleet-certificate",
        "absent:/etc/derpfleet",
        "absent:/etc/systemd/system/derpfleet-backend.service",
        "absent:/etc/systemd/system/derpfleet-certificate.timer",
        "absent:/etc/systemd/system/derpfleet-firewall.service",
        "absent:/etc/systemd/system/derpfleet-nginx-test.service",
        "absent:/etc/systemd/system/derpfleet-relay.service",
        "absent:/opt/derpfleet",
        "absent:/var/lib/derpfleet",
        "absent:/var/lib/derpfleet-relay",
        "absent:/var/www/derpfleet",
        "container:derpfleet-derper",
        "program:derpfleet-relay",
        "absent:/etc/supervisor/conf.d/derpfleet-relay.conf",
        "absent:/etc/supervisord.d/derpfleet-relay.ini",
        "absent:/var/log/derpfleet",
        "firewall:derpfleet",
        "firewall:derpfleet_backend",
        "group:derpfleet-relay",
        "image:derpfleet/derper",
        "user:derpfleet-relay",
    }


def test_the_agents_notes_go_last() -> None:
    host, _, facts = load("bare")
    plan = compile_plan(roles.compile_absent(host, facts), mode="apply")
    assert plan.resources[-1].id == "absent:/var/lib/derpfleet"


def test_services_stop_before_their_files_go_and_nginx_before_its_certificate() -> None:
    host, site, facts = load("bare")
    resources = roles.compile_host(host, site, facts, shipment(host))
    after = replace(deployed(facts, resources), commands={})
    ids = [r.id for r in compile_plan(roles.compile_absent(host, after), mode="apply").resources]
    order = ["service:derpfleet-relay.service", "service:nginx.service/gone", "absent:/opt/derpfleet/certbot"]
    assert sorted(order, key=ids.index) == order


RENEWAL = "account = {account}\nserver = https://ca.example.org/dir\n{hook}"
OURS = RENEWAL.format(account="a1", hook="renew_hook = /opt/derpfleet/bin/certificate deploy --hook\n")


def certbot(**renewals: str) -> list[str]:
    """Return the ids below /etc/letsencrypt and certbot's other folders."""
    files = {f"/etc/letsencrypt/renewal/{name}.conf": a_file(text) for name, text in renewals.items()}
    gone = acme.absent(replace(DEBIAN_12, files=files))
    ours = ["absent:/etc/letsencrypt/derpfleet-kept", "absent:/etc/letsencrypt/derpfleet-order"]
    found = [resource.id for resource in gone if "letsencrypt" in resource.id]
    assert found[:2] == ours  # in any case: they are ours alone
    return found[2:]


def test_certbot_that_only_we_use_loses_its_state_and_keeps_files_of_others() -> None:
    ids = certbot(hk1=OURS)
    assert {"absent:/etc/letsencrypt/accounts", "absent:/etc/letsencrypt/live"} <= set(ids)
    assert ids[-1] == "directory:/etc/letsencrypt"  # if nothing else is in it


def test_certificates_of_others_stay_with_their_accounts() -> None:
    theirs = RENEWAL.format(account="b2", hook="")
    assert certbot(hk1=OURS, blog=theirs) == [
        "absent:/etc/letsencrypt/renewal/hk1.conf",
        "absent:/etc/letsencrypt/live/hk1",
        "absent:/etc/letsencrypt/archive/hk1",
        "absent:/etc/letsencrypt/accounts/ca.example.org/dir/a1",
        "directory:/etc/letsencrypt/accounts/ca.example.org/dir",  # if another account is not in it
        "directory:/etc/letsencrypt/accounts/ca.example.org",
    ]
    shared = RENEWAL.format(account="a1", hook="")
    assert "absent:/etc/letsencrypt/accounts/ca.example.org/dir/a1" not in certbot(hk1=OURS, blog=shared)


def test_certbot_that_never_worked_for_us_is_not_touched() -> None:
    assert certbot(blog=RENEWAL.format(account="b2", hook="")) == []
    assert certbot() == []


def nginx(status: int = 0, stdout: str = "", stderr: str = "") -> Facts:
    """Return the facts of a host with our server in an nginx that prints this."""
    files = {"/etc/nginx/conf.d/zz-derpfleet-http.conf": a_file("")}
    said = Output(status=status, stdout=stdout, stderr=stderr)
    return replace(DEBIAN_12, tools={"nginx": "/usr/sbin/nginx"}, files=files, commands={"nginx": said})


def nginx_gone(facts: Facts) -> Service:
    (found,) = [r for r in roles.compile_absent(Host(**HK1), facts) if r.id == "service:nginx.service/gone"]
    assert isinstance(found, Service)
    return found


def test_nginx_is_stopped_only_where_it_certainly_serves_no_other_site() -> None:
    assert not nginx_gone(nginx()).running
    main = "# configuration file /etc/nginx/nginx.conf:\nhttp { server { listen 80; server_name a.org; } }\n"
    beside = nginx_gone(nginx(stdout=main))
    assert (beside.running, beside.before, len(beside.watch)) == (True, ("nginx", "-t"), 1)
    broken = nginx(status=1, stderr='nginx: [emerg] x in /etc/nginx/conf.d/zz-derpfleet-http.conf:1')
    assert nginx_gone(broken).running
    assert roles.absence_refusals(Host(**HK1), broken) == []


def test_a_package_that_was_removed_is_not_installed_again_for_its_file() -> None:
    main = {"/etc/nginx/nginx.conf": a_file("# Written by derpfleet; changes are overwritten.")}
    for tools, wanted in (({"nginx": "/usr/sbin/nginx"}, True), ({}, False)):
        facts = replace(nginx(), files=main, tools=tools)
        ids = [resource.id for resource in roles.compile_absent(Host(**HK1), facts)]
        assert ("conffile:/etc/nginx/nginx.conf" in ids) == wanted


def test_an_nginx_that_others_have_broken_is_refused() -> None:
    (sentence,) = roles.absence_refusals(Host(**HK1), nginx(status=1, stderr="nginx: [emerg] x"))
    assert "is already invalid, so nothing was changed" in sentence


def docker(content: str | None, **settings: Any) -> dict[str, Resource]:
    files = {} if content is None else {"/etc/docker/daemon.json": a_file(content)}
    host = Host(**HK1, docker={"registry_mirrors": ["https://m.example.org"], **settings})
    return {r.id: r for r in roles.compile_absent(host, replace(DEBIAN_12, files=files))}


def test_dockers_other_settings_stay() -> None:
    name = "file:/etc/docker/daemon.json"
    ours = '{"registry-mirrors": ["https://m.example.org"%s]%s}'
    assert {"absent:/etc/docker/daemon.json", "directory:/etc/docker"} <= docker(ours % ("", "")).keys()
    kept = docker(ours % (', "https://theirs.example.org"', ', "debug": true'))[name]
    assert isinstance(kept, File)
    assert (
        kept.content
        == b'{\n  "debug": true,\n  "registry-mirrors": [\n    "https://theirs.example.org"\n  ]\n}\n'
    )
    assert not [id for id in docker('{"debug": true}') if "daemon.json" in id]
    assert not [id for id in docker(None) if "daemon.json" in id]
    assert "image:ghcr.io/you/derper@sha256:" + "ab" * 32 in docker(
        None, image="ghcr.io/you/derper@sha256:" + "ab" * 32
    )
