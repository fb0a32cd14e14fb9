"""Generated HuJSON: policies as people write them, with blanks and comments in every place."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import strategies as st

PATH = ("derpMap", "Regions", "900")
REGION: dict[str, Any] = {
    "RegionID": 900,
    "RegionCode": "hk",
    "Nodes": [{"Name": "900a", "HostName": "hk1.example.org", "CanPort80": True}],
}
OTHER = {**REGION, "RegionCode": "old", "Latitude": 22.3, "Nodes": [{"Name": "900a", "HostName": "x"}]}
_BLANKS = (" ", "\t", "\n", "\r\n", "  ", "", "// c\n", "/* x */")
_BLANKS += ("/* a\n\tb */", '//{ "900": 1,\n', "/*,}*/")
_WORDS = ("null", "true", "-0.5e3", "12", '"ü//"', '"/* \\" */"', '"a\\u00e9,]"', "{}", "[]")


def comments(text: str) -> list[str]:
    """Return the comments of a text, in order."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', text, re.DOTALL)
    return [token for token in tokens if token[0] == "/"]


def ink(text: str) -> str:
    """Return a text without its blanks."""
    return re.sub(r"[ \t\r\n]", "", text)


class Writer:
    """Writes policies with the random numbers of a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def blank(self) -> str:
        return "".join(self.random.choice(_BLANKS) for _ in range(self.random.randrange(4)))

    def cased(self, key: str) -> str:
        return "".join(letter.upper() if self.random.random() < 0.2 else letter for letter in key)

    def listed(self, parts: list[str], brackets: str) -> str:
        """Return parts with commas between, with or without a last comma, in brackets."""
        inner = ",".join(f"{self.blank()}{part}{self.blank()}" for part in parts)
        comma = "," if parts and self.random.random() < 0.5 else ""
        return f"{brackets[0]}{inner}{comma}{self.blank()}{brackets[1]}"

    def members(self, items: dict[str, str]) -> str:
        named = list(items.items())
        self.random.shuffle(named)
        return self.listed([f'"{key}"{self.blank()}:{self.blank()}{value}' for key, value in named], "{}")

    def value(self, depth: int = 2) -> str:
        kind = self.random.randrange(4 if depth else 2)
        if kind < 2:
            return self.random.choice(_WORDS)
        parts = [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        if kind == 2:
            return self.listed(parts, "[]")
        return self.members({f"k{number}": part for number, part in enumerate(parts)})

    def region(self) -> str:
        if self.random.random() < 0.5:
            return json.dumps(OTHER, indent=self.random.choice((None, 2)))
        nodes = [self.members({key: json.dumps(value) for key, value in OTHER["Nodes"][0].items()})]
        items = {self.cased(key): json.dumps(value) for key, value in OTHER.items() if key != "Nodes"}
        return self.members({**items, "Nodes": self.listed(nodes, "[]")})

    def policy(self) -> str:
        """Return a policy: with a derpMap or without, with region 900 or without."""
        items = {f"key{number}": self.value() for number in range(self.random.randrange(4))}
        if self.random.random() < 0.8:
            regions = {str(id): "null" if id < 900 else self.value() for id in (1, 901) if self.coin()}
            regions |= {"900": self.region()} if self.coin() else {}
            inner = {"OmitDefaultRegions": "false"} if self.coin() else {}
            if self.random.random() < 0.8:
                inner[self.cased("Regions")] = self.members(regions)
            items[self.cased("derpMap")] = self.members(inner) if self.random.random() < 0.9 else "null"
        return f"{self.blank()}{self.members(items)}{self.blank()}"

    def coin(self) -> bool:
        return self.random.random() < 0.5

    def spoiled(self) -> str:
        """Return a policy with a few characters lost or doubled."""
        text = self.policy()
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(len(text))
            new = self.random.choice(("", text[at] * 2, ",", "}", '"', "/", "1"))
            text = text[:at] + new + text[at + 1 :]
        return text


policies = st.integers(0, 1 << 32).map(lambda seed: Writer(seed).policy())
