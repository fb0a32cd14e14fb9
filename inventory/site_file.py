"""Read a site file into a Site, or into all of its problems at once. Contacts no host."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from inventory import others, rules, words
from inventory.document import Document, NotYaml, parse
from inventory.document import Path as Keys
from inventory.model import Host, Site
from inventory.official import with_official
from inventory.problems import Problem, SiteError
from inventory.schema import OF_ONE_HOST, Schema, json_schema, schema_at

Raw = dict[str, Any]

_STAND_IN: Raw = {
    "name": "x",
    "domain": "x.invalid",
    "region": {"id": 999, "code": "x", "name": "x"},
}


def load(path: str | Path) -> Site:
    """Return the site that the file describes, with every relative path made absolute.

    Raises SiteError with every problem of the file, or of the one beside it with official regions.
    """
    # not Path.expanduser, which raises for the ~name of an unknown user
    file = Path(os.path.expanduser(path))  # noqa: PTH111
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        missing = [Problem("", None, "there is no such file")]
        raise SiteError(file, missing, next=f"invoke init --path {file}") from None
    except OSError as error:
        raise SiteError(file, [Problem("", None, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SiteError(file, [Problem("", line, "is not UTF-8 text")]) from None
    site = compile_site(text, file.absolute())
    problems = _commands_of_others(file, site) if isinstance(site, Site) else site
    if isinstance(site, Site) and not problems:
        return with_official(site)
    raise SiteError(file, problems)


def _commands_of_others(file: Path, site: Site) -> list[Problem]:
    """Return the commands of a site file that others may write.

    A `cmd:` secret runs as the operator, with every verb. ssh refuses its configuration likewise.
    """
    info = file.stat()
    if info.st_uid in (0, os.geteuid()) and not info.st_mode & 0o022:
        return []
    why = "belongs to another user" if info.st_uid not in (0, os.geteuid()) else "may be written by others"
    words = f"runs a command, but the site file {why}: chown it to yourself and chmod go-w it first"
    lines = lines_of(site)
    written = [written_at(lines, path) for path in _commands(site.model_dump(), ())]
    return list(dict.fromkeys(Problem(_dotted(path), line, words) for path, line in written))


def _commands(value: Any, path: Keys) -> Iterator[Keys]:
    """Yield the path of each reference `cmd:COMMAND`."""
    if isinstance(value, str) and value.startswith("cmd:"):
        yield path
    for key, member in value.items() if isinstance(value, dict) else ():
        yield from _commands(member, (*path, key))


def lines_of(site: Site) -> Mapping[Keys, int]:
    """Return the line of each value of a loaded site; {} when its file cannot be read any more."""
    try:
        return parse(Path(site.path).read_text(encoding="utf-8-sig")).lines
    except (OSError, ValueError):
        return {}


def written_at(lines: Mapping[Keys, int], path: Keys) -> tuple[Keys, int | None]:
    """Return where the value at `path` is written, and the line, if known.

    It is the host's own value, the one of `defaults`, or the value that it was taken from.
    """
    written = next((place for place in (path, *_elsewhere(path)) if place in lines), path)
    parents = (written[:end] for end in range(len(written), 0, -1))
    return written, next((lines[parent] for parent in parents if parent in lines), None)


def compile_site(text: str, file: Path) -> Site | list[Problem]:
    """Return the site, or its problems.

    `file` names the site file; relative paths are relative to its folder.
    """
    try:
        document = parse(text)
    except NotYaml as error:
        return [Problem("", error.line, error.message)]
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else "is not a mapping: a site file begins with `hosts:`"
        return [Problem("", None, what)]
    return _Reading(document, file).result()


class _Reading:
    """One site file on its way to a Site."""

    def __init__(self, document: Document, file: Path) -> None:
        self.lines = document.lines
        self.file = file
        # A wrong default is reported once, not once for each host.
        self.problems: dict[tuple[str, str], Problem] = {}
        self.wrong: set[Keys] = set()
        for path, line, message in document.faults:
            self.problems[_dotted(path), message] = Problem(_dotted(path), line, message)
        self.raw = document.data

    def result(self) -> Site | list[Problem]:
        raw = self._merged(dict(self.raw))
        site = self._validated(raw)
        hosts = raw["hosts"] if isinstance(raw.get("hosts"), dict) else {}
        for path, message in rules.reserved(hosts):
            self._add(path, message)
        control = raw.get("headscale")
        asked = (*rules.asked_in_the_clear(control, hosts), *rules.asked_of_nobody(control, hosts))
        own = [*rules.duplicates(hosts), *rules.one_control_server(raw), *asked, *rules.of_no_effect(control)]
        own += [*others.of_no_effect_there(self.raw.get("hosts"), hosts), *rules.canaries(raw, hosts)]
        for path, message in own:
            if not self._in_error(path):
                self._add(path, message)
        for name, host in hosts.items():
            self._apply_rules(name, site.hosts[name] if site else self._rest_of(name, host))
        return list(self.problems.values()) if self.problems or site is None else site

    def _merged(self, raw: Raw) -> Raw:
        """Return `raw` with the defaults in every host, and with the keys of the loader."""
        self._refuse(raw, ("path", "official"), "unknown key")
        defaults = raw.pop("defaults", None) or {}
        if not isinstance(defaults, dict):
            self._add(("defaults",), words.explain({"type": "dict_type", "input": defaults}, {}))
            defaults = {}
        defaults = dict(defaults)
        own = "every host has its own: it belongs under hosts.NAME"
        self._refuse(defaults, OF_ONE_HOST, own, ("defaults",))
        if isinstance(hosts := raw.get("hosts"), dict):
            raw["hosts"] = {name: self._host(name, host, defaults) for name, host in hosts.items()}
        if isinstance(headscale := raw.get("headscale"), dict):
            ssh = _merge({"ssh": defaults.get("ssh")}, {"ssh": headscale.get("ssh")})
            raw["headscale"] = {**headscale, **ssh}
            _default_address(raw["headscale"], _host_of(headscale.get("url")))
        return {"path": str(self.file), "known_hosts": "known_hosts", **_without_nothing(raw)}

    def _host(self, name: str, host: Any, defaults: Raw) -> Any:
        if not isinstance(host, dict | None):
            return host
        host = dict(host or {})
        message = f"unknown key; the host's name is its key, {name}"
        self._refuse(host, ("name",), message, ("hosts", name))
        host = _merge(defaults, host)
        if host.get("managed") is not False:
            _default_address(host, host.get("ipv4") or host.get("domain"))
        return {**host, "name": name}

    def _refuse(self, section: Raw, keys: tuple[str, ...], message: str, at: Keys = ()) -> None:
        for key in keys:
            if key in section:
                del section[key]
                self._add((*at, key), message)

    def _validated(self, raw: Raw) -> Site | None:
        try:
            # By way of JSON: only there pydantic is strict and still makes addresses and tuples.
            context = {"base": self.file.parent}
            return Site.model_validate_json(json.dumps(raw), strict=True, context=context)
        except ValidationError as errors:
            schema = json_schema()
            for error in errors.errors(include_url=False):
                self._add_error(dict(error), schema)
            return None

    def _add_error(self, error: Mapping[str, Any], schema: Schema) -> None:
        path = tuple(step for step in error["loc"] if step != "[key]")
        is_key = error["loc"][-1] == "[key]"  # of a section whose keys are names or words
        part = schema_at(schema, path[:-1] if is_key or error["type"] == "extra_forbidden" else path)
        part = part["propertyNames"] if is_key else part
        if path[:1] == ("hosts",) and path[2:] == ("name",):
            return  # the key under `hosts`, which has its own refusal
        addresses = {path, ("defaults", "ssh", "address")}
        if path[-2:] == ("ssh", "address") and addresses.isdisjoint(self.lines):
            return  # taken from a value that has its own refusal
        self.wrong.add(path)
        self._add(path, words.explain(error, part))

    def _rest_of(self, name: str, host: Any) -> Host | None:
        """Return the host without its wrong keys, so that the rules check the rest.

        A required key gets a stand-in. Returns None when the rest is still not a host.
        """
        for path in self.wrong:
            if path[:2] == ("hosts", name) and len(path) > 2:
                host = _without(host, path[2:])
        try:
            return Host.model_validate_json(json.dumps(_merge(_STAND_IN, host)), strict=True)
        except ValidationError:
            return None

    def _apply_rules(self, name: str, host: Host | None) -> None:
        for finding in rules.host_findings(host) if host else ():
            paths = [("hosts", name, *_steps(key)) for key in (finding.path, *finding.looked_at)]
            if not any(map(self._in_error, paths)):
                self._add(paths[0], finding.message)

    def _in_error(self, path: Keys) -> bool:
        """Whether this value, one that contains it, or one that it contains has been refused."""
        return any(wrong[: len(path)] == path[: len(wrong)] for wrong in self.wrong)

    def _add(self, path: Keys, message: str) -> None:
        written, line = written_at(self.lines, path)
        problem = Problem(_dotted(written), line, message)
        self.problems.setdefault((problem.path, message), problem)


def _merge(defaults: Any, own: Any) -> Any:
    """Return own keys before those of `defaults`, section by section.

    A key without a value undoes a default; a section without keys does not.
    """
    if not isinstance(defaults, dict) or not isinstance(own, dict | None):
        return own
    if own is None:
        return defaults
    merged = {key: _merge(defaults[key], value) for key, value in own.items() if key in defaults}
    return {**defaults, **own, **merged}


def _without_nothing(part: Any) -> Any:
    """Return the part without its keys that have no value: they count as absent."""
    if isinstance(part, dict):
        return {key: _without_nothing(value) for key, value in part.items() if value is not None}
    return part


def _without(part: Any, path: Keys) -> Any:
    if not isinstance(part, dict) or path[0] not in part:
        return part
    if len(path) == 1:
        return {key: value for key, value in part.items() if key != path[0]}
    return {**part, path[0]: _without(part[str(path[0])], path[1:])}


def _default_address(section: Raw, address: Any) -> None:
    ssh = section.get("ssh")
    if address and isinstance(ssh, dict | None) and not (ssh or {}).get("address"):
        section["ssh"] = {**(ssh or {}), "address": address}


def _host_of(url: Any) -> str | None:
    try:
        return urlsplit(url).hostname if isinstance(url, str) else None
    except ValueError:
        return None


def _elsewhere(path: Keys) -> Iterator[Keys]:
    """Yield the other places where the value at `path` may be written."""
    if path[:1] == ("hosts",) and len(path) > 2:
        yield ("defaults", *path[2:])
    if path[:2] == ("headscale", "ssh"):
        yield ("defaults", *path[1:])
    if path[-2:] == ("ssh", "address"):
        yield from ((*path[:-2], key) for key in ("ipv4", "domain", "url"))


def _steps(dotted: str) -> Keys:
    return tuple(int(step) if step.isdigit() else step for step in dotted.split("."))


def _dotted(path: Keys) -> str:
    return ".".join(map(str, path))
