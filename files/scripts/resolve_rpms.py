"""Name the RPMs that an installation of packages would fetch: `resolve_rpms.py lacking|all NAME…`.

A name as @nginx:1.24 is a module stream, which is used where the host has none of that module. It
prints {"form": "rpm", "files": [{"url", "record"}, …]} in JSON. `record` has the sum, version
and relations of the host's package lists. `all`: as if nothing were installed. It fetches and
installs nothing, and needs no way out, but package lists and dnf 4.
"""

import json
import os
import sys

DNF = "/usr/bin/dnf-3"
MODULES = "/etc/dnf/modules.d/%s.module"  # dnf's own files of the streams that are enabled
RELATIONS = ("provides", "requires", "conflicts", "obsoletes")


def go_on_in_dnfs_python():
    """Run this program again in the Python that dnf runs in: only that one has its modules."""
    try:
        with open(DNF) as program:
            python = program.readline()[2:].split()[0]
        with open("/proc/self/cmdline") as file:
            words = file.read().split("\0")[1:-1]
    except (OSError, IndexError):
        python = ""
    if not python or python == sys.executable:
        sys.exit("there is no dnf 4 here (%s), which could name packages" % DNF)
    os.execv(python, [python] + words)


try:
    import dnf
    import dnf.exceptions
    import dnf.module.module_base
except ImportError:
    go_on_in_dnfs_python()


def planned(extent, names):
    """Return the packages that dnf's solver chooses from the lists at hand."""
    base = dnf.Base()
    base.conf.read()
    base.conf.substitutions.update_from_etc("/")
    base.conf.cacheonly = True
    base.conf.install_weak_deps = False
    base.read_all_repos()
    base.fill_sack(load_system_repo=extent == "lacking")
    streams = [name[1:] for name in names if name.startswith("@")]
    wanted = [stream for stream in streams if not os.path.exists(MODULES % stream.split(":")[0])]
    if wanted:  # for this solver alone: nothing is written
        dnf.module.module_base.ModuleBase(base).enable(wanted)
    for name in names:
        if not name.startswith("@"):
            base.install(name)
    base.resolve()
    return sorted(base.transaction.install_set)


def record(package, asked_for):
    """Return what dnf has to know of a package. `asked_for`: paths that others require."""
    kind, digest = package.returnIdSum()
    found = {kind: digest, "size": package.downloadsize}
    for field in ("name", "arch", "epoch", "version", "release"):
        found[field] = getattr(package, field)
    for relation in RELATIONS:
        words = (str(word) for word in getattr(package, relation))
        found[relation] = sorted(word for word in words if not word.startswith("rpmlib("))
    found["files"] = sorted(asked_for.intersection(package.files))
    return found


def main():
    try:
        packages = planned(sys.argv[1], sys.argv[2:])
    except dnf.exceptions.Error as error:
        sys.exit("%s\n(of the package lists in dnf's cache: dnf makecache reads them anew)" % error)
    asked_for = {str(word) for package in packages for word in package.requires}
    files = []
    for package in packages:
        url = package.remote_location(schemes=("http", "https"))
        files.append({"url": url, "record": record(package, asked_for)})
    print(json.dumps({"form": "rpm", "files": files}))


main()
