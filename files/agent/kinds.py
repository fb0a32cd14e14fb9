"""The kinds by name, as engine.resource names them."""

from agent.accounts import Group, User
from agent.command import Command
from agent.docker import Container, Image
from agent.firewalls import NftTable
from agent.found import AsFound
from agent.kernel import Sysctl
from agent.open_ports import OpenPorts
from agent.package_source import PlannedSource
from agent.packages import Conffile, Package
from agent.paths import Absent, Directory, File, Symlink, Tree
from agent.selinux import Selinux
from agent.service import Service
from agent.supervisord import SupervisorProgram

KINDS = {
    "file": File,
    "directory": Directory,
    "symlink": Symlink,
    "absent": Absent,
    "tree": Tree,
    "package_source": PlannedSource,
    "package": Package,
    "conffile": Conffile,
    "group": Group,
    "user": User,
    "command": Command,
    "service": Service,
    "sysctl": Sysctl,
    "selinux": Selinux,
    "firewall": NftTable,
    "open_ports": OpenPorts,
    "image": Image,
    "container": Container,
    "program": SupervisorProgram,
    "as_found": AsFound,
}
