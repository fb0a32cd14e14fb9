"""The map, and the control servers that have no host of ours. Frozen data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field

from inventory.choices import AdmissionName, ControlName
from inventory.part import Model
from inventory.secrets import SecretRef
from inventory.values import Word, leads_somewhere, text

if TYPE_CHECKING:
    from inventory.model import Ssh


class Derpmap(Model):
    """The map that `invoke derpmap` prints."""

    omit_default_regions: bool = Field(False, description="leave Tailscale's own relays out")


class ControlPart(Model):
    """The base of control servers."""

    def hosts(self) -> Mapping[str, Ssh]:
        """Return how to log in to its hosts, by their names here."""
        return {}

    def secrets(self) -> Mapping[str, str]:
        """Return the references of its secrets beside those of logins, by their keys."""
        return {}


class MapFile(ControlPart):
    """A headscale whose map is a file of the controller, which somebody else delivers.

    This is not a section of the site file: it is `headscale` with `map_file`.
    """

    kind: ClassVar[ControlName] = "map-file"
    admission: ClassVar[AdmissionName] = "headscale"

    path: str
    url: str
    verify_url: str

    @property
    def place(self) -> str:
        """Return where the map is, in words."""
        return self.url


class OauthClient(Model):
    """An OAuth client of the tailnet, with the scope policy_file. Its keys do not expire."""

    id: Word
    secret: SecretRef


class Tailscale(ControlPart):
    """Tailscale's own control server: our regions are in the derpMap of the tailnet's policy."""

    kind: ClassVar[ControlName] = "tailscale"
    admission: ClassVar[AdmissionName] = "open"
    url: ClassVar[str] = ""
    verify_url: ClassVar[str] = ""

    tailnet: str = text(
        r"^[A-Za-z0-9._@+-]{1,253}$",
        "a tailnet, as example.com or -",
        default="-",
        description="its ID or name, as the console shows it; -: the one that the key is of",
    )
    api_key: SecretRef | None = Field(
        None, description="an API key of somebody who may write the policy; or give oauth"
    )
    oauth: OauthClient | None = Field(
        None, description="an OAuth client with the scope policy_file, in place of api_key"
    )
    api: Annotated[str, AfterValidator(leads_somewhere)] = text(
        r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?$",
        "an https URL without a path",
        default="https://api.tailscale.com",
        description="where Tailscale's API is",
    )

    def secrets(self) -> Mapping[str, str]:
        """Return the references of its secrets, by their keys."""
        found = {"api_key": self.api_key, "oauth.secret": self.oauth and self.oauth.secret}
        return {key: ref for key, ref in found.items() if ref}

    @property
    def place(self) -> str:
        """Return where the map is, in words."""
        return "the policy of the key's tailnet" if self.tailnet == "-" else f"the policy of {self.tailnet}"


class Paste(ControlPart):
    """No control server that is ours to change: an operator pastes the map into it.

    This is not a section of the site file.
    """

    kind: ClassVar[ControlName] = "paste"
    admission: ClassVar[AdmissionName] = "open"
    url: ClassVar[str] = ""
    verify_url: ClassVar[str] = ""
    place: ClassVar[str] = ""
