"""The reader of `nginx -T`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.readers.nginx_config import (
    Directive,
    Listen,
    NginxConfigError,
    Server,
    included_patterns,
    parse_dump,
    servers,
)

MAIN = "/etc/nginx/nginx.conf"


def dump(**files: str) -> str:
    """`nginx -T`'s form; `_` in a name means a slash."""
    names = {"main": MAIN} | {
        name: f"/etc/nginx/{name.replace('_', '/')}" for name in files if name != "main"
    }
    return "".join(f"# configuration file {names[name]}:\n{text}\n\n" for name, text in files.items())


def http(text: str) -> str:
    return dump(main=f"http {{ {text} }}")


@pytest.mark.parametrize(
    ("text", "listens"),
    [
        ("", [Listen("*", 80)]),
        ("listen 8080;", [Listen("*", 8080)]),
        ("listen *:81;", [Listen("*", 81)]),
        ("listen 192.0.2.1;", [Listen("192.0.2.1", 80)]),
        ("listen 192.0.2.1:443 ssl http2;", [Listen("192.0.2.1", 443, ("ssl", "http2"))]),
        ("listen [::]:443 ssl ipv6only=off;", [Listen("[::]", 443, ("ssl", "ipv6only=off"))]),
        ("listen [2001:db8::1];", [Listen("[2001:db8::1]", 80)]),
        ("listen localhost:8000;", [Listen("localhost", 8000)]),
        ("listen 81-83 ssl;", [Listen("*", port, ("ssl",)) for port in (81, 82, 83)]),
        ("listen [::1]:81-82;", [Listen("[::1]", 81), Listen("[::1]", 82)]),
        (f"listen {'9' * 5000};", [Listen("9" * 5000, 80)]),
        ("listen ²;", [Listen("²", 80)]),
        ("listen unix:/run/x.sock;", [Listen("unix:/run/x.sock", 0)]),
    ],
)
def test_listen(text: str, listens: list[Listen]) -> None:
    assert servers(http(f"server {{ {text} }}")) == (Server(MAIN, (), tuple(listens)),)


def test_includes_are_put_in_place_and_keep_their_file() -> None:
    text = dump(
        main="events {} http { include mime.types; include /etc/nginx/conf.d/*.conf; include sites/*; }",
        **{
            "mime.types": "types { text/html html; }",
            "conf.d_b.conf": "server { server_name b; }",
            "conf.d_a.conf": "server { server_name a; }",
        },
        sites_x="server { listen 443 ssl; server_name x y; }",
    )  # fmt: skip
    assert [(server.file, server.names) for server in servers(text)] == [
        ("/etc/nginx/conf.d/a.conf", ("a",)),
        ("/etc/nginx/conf.d/b.conf", ("b",)),
        ("/etc/nginx/sites/x", ("x", "y")),
    ]
    assert included_patterns(text) == (
        "/etc/nginx/mime.types",
        "/etc/nginx/conf.d/*.conf",
        "/etc/nginx/sites/*",
    )


def test_stream_servers_are_marked() -> None:
    text = dump(
        main="stream { server { listen 443; proxy_pass 127.0.0.1:8443; } } "
        "http { server { listen 80; } } mail { server { listen 25; } }"
    )
    assert [(server.stream, server.listens[0].port) for server in servers(text)] == [(True, 443), (False, 80)]


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("x a b;", ("a", "b")),
        ('x "a b" c;', ("a b", "c")),
        ("x 'it is; {so}';", ("it is; {so}",)),
        ('x "say \\"hi\\"";', ('say \\"hi\\"',)),
        ("x a#b; # a comment; with } marks\n", ("a#b",)),
        ("x ~^/(?<id>\\d{2})$;", None),  # nginx wants such a brace quoted as well
        ("x ${a}b $c;", ("${a}b", "$c")),
        ("x a\\;b;", ("a\\;b",)),
    ],
)
def test_words(text: str, args: tuple[str, ...] | None) -> None:
    if args is None:
        with pytest.raises(NginxConfigError):
            parse_dump(dump(main=text))
    else:
        assert parse_dump(dump(main=text)) == (Directive("x", args, MAIN),)


def test_lua_blocks_are_passed_over() -> None:
    text = http(
        'server { location / { content_by_lua_block { ngx.say("it\'s {fine}") if x then { y } end } } '
        "listen 81; }"
    )
    assert servers(text)[0].listens == (Listen("*", 81),)


@pytest.mark.parametrize(
    "code",
    [
        'ngx.say("}")', "ngx.say('{', \"it's \\\" {\")", "-- it's a } in a comment", "--[[ } \n } ]] x()",
        "x = [[ } ]] y = [==[ ]] } ]==]", "t = { a = { [b[1]] = '}' } }", "",
    ],
)
def test_braces_in_the_strings_and_comments_of_lua_do_not_count(code: str) -> None:
    text = http(f"server {{ location / {{ content_by_lua_block {{ {code}\n }} }} listen 81; }}")
    assert servers(text) == (Server(MAIN, (), (Listen("*", 81),)),)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("http {\n  server { listen 80 }\n}", r"nginx\.conf:2: a } that closes nothing"),
        ("x;\ny {\n", r"nginx\.conf:5: the end, in the middle"),
        ("x;\n\ninit_by_lua_block {\n x = 1\n", r"nginx\.conf:3: a Lua block without an end"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, where: str) -> None:
    with pytest.raises(NginxConfigError, match=where):
        servers(dump(main=text))


@pytest.mark.parametrize(
    "text", ["http {", "http }", "}", "{ }", "a b", "server { listen 80 }", '"', "x_by_lua_block {"]
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(NginxConfigError):
        parse_dump(dump(main=text))


def test_a_circle_of_includes_is_refused() -> None:
    with pytest.raises(NginxConfigError, match="circle"):
        parse_dump(dump(main="include nginx.conf;"))


def doubled(times: int) -> dict[str, str]:
    """Return files that each include the next one twice."""
    chain = {f"a{number}": f"include a{number + 1}; include a{number + 1};" for number in range(times)}
    return {"main": "include a0;", **chain, f"a{times}": "x;" * 10}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"main": "x_by_lua_block { " + "[[" * 200_000}, "a Lua block without an end"),
        ({"main": "x_by_lua_block { " + "[=" * 200_000}, "a Lua block without an end"),
        ({"main": "x_by_lua_block { " + "[==[" * 100_000 + "}"}, "a Lua block without an end"),
        ({"main": "x_by_lua_block { " + "--[[" * 100_000 + "}"}, "a Lua block without an end"),
        ({"main": "x_by_lua_block { " + '"\\' * 100_000 + "\n}"}, "a Lua block without an end"),
        ({"main": "x_by_lua_block { " + "'\\" * 100_001}, "a Lua block without an end"),
        ({"main": "a {" * 5000 + "}" * 5000}, "main:1: more than 100 blocks within each other"),
        ({"main": "include a;", "a": "b {" * 90 + "include c;" + "}" * 90, "c": "d {" * 50 + "}" * 50}, "mu"),
        (doubled(19), "multiply beyond reading"),
        ({"main": "include *x;" * 9000, **{f"f{number}": "y;" for number in range(1000)}}, "multiply"),
        ({"main": "http { server { listen 1-60000; } }"}, "a listen on more than 1000 ports"),
        ({"main": "x;" * 1_000_001}, "more than 2000000"),
    ],
)
def test_what_would_take_too_long_to_read_is_refused(files: dict[str, str], why: str) -> None:
    """No test measures time: before the bounds, these took from minutes to hours."""
    parts = [f"# configuration file /etc/nginx/{name}:\n{content}\n\n" for name, content in files.items()]
    with pytest.raises(NginxConfigError, match=why):
        servers("".join(parts))


def test_a_large_configuration_is_read() -> None:
    sites = {f"conf.d_{number}.conf": "server { listen 80; include common; }" for number in range(1500)}
    text = dump(main="http { include conf.d/*.conf; }", common="gzip on; " * 20, **sites)
    assert len(servers(text)) == 1500


def test_nothing_has_no_servers() -> None:
    assert servers("") == ()
    assert included_patterns("") == ()


@given(st.text(alphabet="ab ;{}\"'#\\\n$*:[]0/", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        servers(dump(main=text))
    except NginxConfigError:
        return


def test_files_with_spaces_in_their_names_are_files_of_their_own() -> None:
    dump = (
        "# configuration file /etc/nginx/nginx.conf:\nhttp { include conf.d/*.conf; }\n"
        "# configuration file /etc/nginx/conf.d/my site.conf:\nserver { server_name a.org; }\n"
    )
    (server,) = servers(dump)
    assert (server.file, server.names) == ("/etc/nginx/conf.d/my site.conf", ("a.org",))


def test_a_star_of_an_include_stands_for_no_slash() -> None:
    dump = (
        "# configuration file /etc/nginx/nginx.conf:\nhttp { include vhosts/*; include vhosts/old/a; }\n"
        "# configuration file /etc/nginx/vhosts/old/a:\nserver { server_name a.org; }\n"
    )
    assert len(servers(dump)) == 1
