import pytest

from relay.golang import flag
from relay.golang.flag import FlagError, HelpWanted

SETTERS = {
    "b": flag.parse_bool,
    "n": flag.parse_int,
    "s": str,
    "d": flag.parse_duration,
    "f": flag.parse_float,
}


@pytest.mark.parametrize(
    "argv, values, rest",
    [
        ([], {}, []),
        (["-s=x"], {"s": "x"}, []),
        (["-s", "x"], {"s": "x"}, []),
        (["--s=x"], {"s": "x"}, []),
        (["--s", "-b"], {"s": "-b"}, []),  # the value may look like a flag
        (["-s="], {"s": ""}, []),
        (["-s=a=b"], {"s": "a=b"}, []),
        (["-b"], {"b": True}, []),
        (["-b=false"], {"b": False}, []),
        (["-b", "false"], {"b": True}, ["false"]),  # Go's trap: a boolean takes no separate value
        (["-n=1", "-n=2"], {"n": 2}, []),
        (["-b", "x", "-n", "1"], {"b": True}, ["x", "-n", "1"]),
        (["-b", "--", "-n"], {"b": True}, ["-n"]),
        (["-"], {}, ["-"]),
        ([""], {}, [""]),
        (["-d", "1m30s", "-f", "2.5"], {"d": 90.0, "f": 2.5}, []),
    ],
)
def test_syntax_is_gos(argv, values, rest):
    assert flag.parse_argv(argv, SETTERS) == (values, rest)


@pytest.mark.parametrize(
    "argv, text",
    [
        (["-x"], "flag provided but not defined: -x"),
        (["--x=1"], "flag provided but not defined: -x"),
        (["-s"], "flag needs an argument: -s"),
        (["---s"], "bad flag syntax: ---s"),
        (["-=s"], "bad flag syntax: -=s"),
        (["-b=maybe"], 'invalid boolean value "maybe" for -b: parse error'),
        (["-n=ten"], 'invalid value "ten" for flag -n: parse error'),
        (["-n=9223372036854775808"], 'invalid value "9223372036854775808" for flag -n: value out of range'),
        (["-d=10"], 'invalid value "10" for flag -d: parse error'),
        (["-f="], 'invalid value "" for flag -f: parse error'),
    ],
)
def test_errors_have_gos_words(argv, text):
    with pytest.raises(FlagError) as e:
        flag.parse_argv(argv, SETTERS)
    assert str(e.value) == text


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["-b", "-help"]])
def test_help_is_wanted(argv):
    with pytest.raises(HelpWanted):
        flag.parse_argv(argv, SETTERS)


GOOD = {
    flag.parse_int: {
        "0": 0, "-1": -1, "+7": 7, "0x1F": 31, "0b101": 5, "0o17": 15, "017": 15, "-017": -15,
        "1_000": 1000, "00": 0,
    },
    flag.parse_float: {
        "1": 1.0, ".5": 0.5, "2.": 2.0, "1e3": 1000.0, "+Inf": float("inf"), "-inf": float("-inf"),
    },
    flag.parse_duration: {
        "0": 0, "+0": 0, "10m": 600, "1h30m": 5400, "1.5s": 1.5, ".5s": 0.5, "250ms": 0.25,
        "3us": 3e-6, "3µs": 3e-6, "3μs": 3e-6, "10ns": 1e-8, "-2s": -2,
    },
}
BAD = {
    flag.parse_int: ["", " 1", "1 ", "1.0", "0x", "1__0", "_1", "08", "٣"],
    flag.parse_duration: ["", "s", "1", "1d", ".s", "1 s", "--1s", "3000000h", "+-0"],
}


@pytest.mark.parametrize(
    ("parse", "text", "value"), [(parse, *row) for parse, rows in GOOD.items() for row in rows.items()]
)
def test_numbers_in_gos_literal_forms(parse, text, value):
    exact = parse is not flag.parse_duration
    assert parse(text) == (value if exact else pytest.approx(value, rel=1e-12))


@pytest.mark.parametrize(("parse", "text"), [(parse, text) for parse, texts in BAD.items() for text in texts])
def test_no_numbers(parse, text):
    with pytest.raises(ValueError, match="parse error"):
        parse(text)


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0s"),
        (1.5, "1.5s"),
        (600, "10m0s"),
        (5400, "1h30m0s"),
        (0.25, "250ms"),
        (3e-6, "3µs"),
        (5e-9, "5ns"),
        (-2, "-2s"),
    ],
)
def test_durations_print_as_in_go(seconds, text):
    assert flag.format_duration(seconds) == text


def test_lists_ignore_blanks():
    assert flag.parse_list(" a, b,,c ,") == ("a", "b", "c")
    assert flag.parse_list("") == ()


@pytest.mark.parametrize(
    "address, parts",
    [
        (":443", ("", "443")),
        ("1.2.3.4:80", ("1.2.3.4", "80")),
        ("[::1]:80", ("::1", "80")),
        ("host:https", ("host", "https")),
    ],
)
def test_split_host_port(address, parts):
    assert flag.split_host_port(address) == parts


@pytest.mark.parametrize(
    "address, text",
    [
        ("443", "missing port in address"),
        ("[::1]", "missing port in address"),
        ("::1:443", "too many colons in address"),
        ("[a]b:1", "unexpected bracket in address"),
    ],
)
def test_no_host_port(address, text):
    with pytest.raises(ValueError, match=f"{text}$"):
        flag.split_host_port(address)
