"""The part of Tailscale's API that reads, validates and writes a tailnet's policy.

The calls are those of Tailscale's own gitops-pusher: GET and POST /api/v2/tailnet/NAME/acl, with
its ETag in If-Match, and /acl/validate, which answers 200 with a message for a bad policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from control.contract import Reach
from control.hujson import standard
from control.web import NoWebAnswer, WebAnswer, WebQuestion
from inventory.control_servers import OauthClient, Tailscale
from inventory.errors import DerpfleetError
from inventory.secrets import Secret

_HUJSON = "application/hujson"
_TOKEN = r"[!-~]{1,4096}"  # noqa: S105 - the form of a key, not one
_SHOWN = 600  # characters of a message of the API


class PolicyRefused(DerpfleetError):
    """The policy was not changed."""


@dataclass(frozen=True)
class Version:
    """The policy's text, and the ETag that a write of another text has to name."""

    text: str
    etag: str


@dataclass
class PolicyApi:
    """The policy of one tailnet. The key is read at the first call, and kept in memory only."""

    settings: Tailscale
    reach: Reach
    _authorization: Secret | None = None

    def read(self) -> Version:
        """Return the policy as it is now. Raises PolicyRefused, NoWebAnswer, SecretError."""
        answer = self._ask("GET", "", headers={"Accept": _HUJSON})
        if answer.status != 200 or not answer.headers.get("etag"):
            raise self._refused(answer, f"{self.settings.place} cannot be read")
        try:
            return Version(answer.body.decode(), answer.headers["etag"])
        except UnicodeDecodeError as error:
            line = answer.body.count(b"\n", 0, error.start) + 1
            raise PolicyRefused(
                f"{self.settings.place} is no text",
                why=f"line {line} is not UTF-8; nothing was written",
                next="correct it in the console, then run this again",
            ) from None

    def validate(self, text: str) -> None:
        """Let Tailscale judge a policy, with its tests. Raises as `read` does."""
        # As gitops-pusher, it is sent without comments, so that lines and columns are the same.
        answer = self._ask("POST", "/validate", headers={"Content-Type": _HUJSON}, body=standard(text))
        if answer.status != 200:
            raise self._refused(answer, f"{self.settings.place} was not validated")
        judged = _json(answer)
        if judged.get("message") or judged.get("data"):
            raise PolicyRefused(
                "Tailscale does not accept the policy with our regions in it",
                why=f"{_words(answer)}\nnothing was written to {self.settings.place}",
                next="correct in the console what it names, then run this again",
            )

    def write(self, text: str, etag: str) -> bool:
        """Write the policy if it is still the one of `etag`. Returns whether it was.

        Raises as `read` does.
        """
        headers = {"Content-Type": _HUJSON, "Accept": _HUJSON, "If-Match": etag}
        try:
            answer = self._ask("POST", "", headers=headers, body=text)
        except NoWebAnswer as error:
            error.why += f"\nit is not known whether {self.settings.place} was written"
            error.next += "; then run this again: it reads the policy first"
            raise
        if answer.status not in (200, 412):
            raise self._refused(answer, f"{self.settings.place} was not written")
        return answer.status == 200

    @property
    def _key(self) -> str:
        """Return where the key is from, for messages."""
        return " ".join(f"{key}: {reference}" for key, reference in self.settings.secrets().items())

    def _ask(self, method: str, path: str, *, headers: Mapping[str, str], body: str = "") -> WebAnswer:
        url = f"{self.settings.api}/api/v2/tailnet/{quote(self.settings.tailnet, safe='')}/acl{path}"
        if self._authorization is None:
            self._authorization = self._bearer()
        sent: dict[str, str | Secret] = {**headers, "Authorization": self._authorization}
        return self.reach.fetch(WebQuestion(url=url, method=method, headers=sent, body=body))

    def _bearer(self) -> Secret:
        settings = self.settings
        key = self._token(settings.oauth) if settings.oauth else self.reach.secret(str(settings.api_key))
        return key.of_form(_TOKEN, "one word, as an API key is").within("Bearer {}")

    def _token(self, client: OauthClient) -> Secret:
        """Return an access token of the OAuth client, which lives for an hour."""
        secret = self.reach.secret(client.secret)
        fields = {"grant_type": "client_credentials", "client_id": client.id}
        body = Secret(urlencode({**fields, "client_secret": secret.reveal()}))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        question = WebQuestion(
            url=f"{self.settings.api}/api/v2/oauth/token", method="POST", headers=headers, body=body
        )
        answer = self.reach.fetch(question)
        token = _json(answer).get("access_token")
        if answer.status != 200 or not isinstance(token, str):
            raise self._refused(answer, f"the OAuth client {client.id} gets no access token")
        return Secret(token)

    def _refused(self, answer: WebAnswer, what: str) -> PolicyRefused:
        place, key = self.settings.place, self._key
        causes = {
            401: (
                f"Tailscale does not know the key ({key})",
                "make a new one: https://login.tailscale.com/admin/settings (API keys expire)",
            ),
            403: (
                f"the key ({key}) may not do this in {place}",
                "give the OAuth client the scope policy_file, or use an API key of an admin of that tailnet",
            ),
            404: (
                f"the key ({key}) sees no tailnet {self.settings.tailnet}",
                "compare tailscale.tailnet with the console; -: the key's own tailnet",
            ),
        }
        why, step = causes.get(
            answer.status,
            (f"Tailscale answers {answer.status}", "run this again; if it stays so, look at the message"),
        )
        return PolicyRefused(what, why=f"{why}: {_words(answer)}\nnothing was written", next=step)


def _said(answer: WebAnswer) -> str:
    return answer.body.decode(errors="replace").strip()


def _json(answer: WebAnswer) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(answer: WebAnswer) -> str:
    """Return the API's message, with the errors of each user whose tests fail."""
    found = _json(answer)
    data = found.get("data")
    lines = [str(found.get("message") or "")]
    for each in data if isinstance(data, list) else ():
        errors = each.get("errors") if isinstance(each, dict) else None
        lines += [f"{each.get('user', '')}: {error}" for error in errors or ()]
    words = "\n".join(filter(None, lines)) or _said(answer) or f"HTTP {answer.status}"
    return words[:_SHOWN]
