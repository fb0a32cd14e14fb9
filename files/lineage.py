"""certbot's folders for one certificate (its lineage), and orders that change no other program's.

Installed on hosts beside /opt/derpfleet/bin/certificate. Standard library only.

certbot passes over a lineage that it cannot read, and orders a new one under another name at each
run. So the lineage is judged here before each order. A broken one is replaced by one order, which
is made in a folder of its own. Both change places only when the new certificate is there. The old
one is kept, and while it is kept there is no second replacement.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time

KINDS = ("cert", "chain", "fullchain", "privkey")
ORDER, KEPT = "derpfleet-order", "derpfleet-kept"  # folders like certbot's own, below it
# certbot retries a nonce only once
TRANSIENT = ("Another instance of Certbot is already running", "invalid anti-replay nonce")
TRANSIENT_S = 90  # keep retrying transient errors for this long
CLOCK_S = 600  # certificates are valid from an hour before their order
OUR_INI = "DERPFLEET_CERTBOT_INI"  # the settings that are read in place of cli.ini
IN_ORDER = "DERPFLEET_ORDER"  # set for the hook, which has nothing to do: the order's caller deploys

ADVICE = {
    "dns": "look at the A and AAAA records of the name: both must lead to this host, or not exist",
    "connection": "port 80 must be reachable from everywhere: check the provider's firewall and AAAA record",
    "unauthorized": "the name leads to another machine, or something in front of this host answers port 80",
    "zoneKey": "the DNS zone's provider refused the key: fix certificate.dns.secret and the keys beside it",
    "zone": "the zone of the name is not at certificate.dns.provider, or the key may not see it",
    "zoneServer": "the zone's server does not answer this host: check certificate.dns, and the way out",
    "caa": "the domain's CAA record does not allow this certificate authority",
    "rateLimited": "wait until the time that it names, or set certificate.source: letsencrypt-staging",
    "rejectedIdentifier": "the certificate authority does not give certificates for this name",
    "externalAccountRequired": "it needs an account that you have there (EAB): set certificate.account",
    "account": "fix certificate.account.hmac, or key_id beside it: the ACME server does not accept them",
    "invalidContact": "fix certificate.contact",
    "userActionRequired": "the certificate authority has new terms: read them, then deploy again",
    "serverInternal": "the certificate authority has a fault of its own: try again later",
    "tls": "the ACME server's own certificate is not trusted here: name its CA with certificate.ca",
}
# Words of certbot's plugins: the provider refuses the key, has no such zone, or does not answer.
KEY_REFUSED = (
    *("didn't like the signature", "TSIG key", "Received response from server: REFUSED"),  # rfc2136
    *("valid Cloudflare API credentials", "Zone:DNS:Edit"),
    *("InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDenied"),  # route53; aliyun
    *("InvalidAccessKeyId", "Forbidden.RAM"),  # aliyun
    *("AuthFailure", "UnauthorizedOperation"),  # tencent
)
NO_ZONE = ("Unable to determine base domain", "determine zone_id", "No managed", "Route53 hosted zone")
NO_ANSWER = ("etwork error", "Encountered error when making query", "Could not connect to the endpoint URL")
# Words that certbot prints when it prints no type.
SPOKEN = (
    ("too many", "rateLimited"),
    ("rate limit", "rateLimited"),
    ("CERTIFICATE_VERIFY_FAILED", "tls"),
    ("requires external account binding", "externalAccountRequired"),
    ("external account", "account"),
    ("External Account", "account"),  # ZeroSSL
    ("field 'kid'", "account"),
    ("Unable to register an account", "userActionRequired"),
    *((text, "zoneKey") for text in KEY_REFUSED),
    *((text, "zone") for text in NO_ZONE),
    *((text, "zoneServer") for text in NO_ANSWER),
)
# The beginnings of lines of certbot that hold no reason.
NOISE = (
    *("Saving debug log", "Ask for help", "Some challenges", "- - -", "Requesting a certificate"),
    *("Renewing an existing", "Account reg", "An unexpected error occurred"),
)


class Problem(Exception):
    """The problem, in plain words. `kind`: the ACME server's word for it, or ""."""

    def __init__(self, words, kind=""):
        super().__init__(words)
        self.kind = kind


class Lineage:
    """The places of one certificate in a folder like /etc/letsencrypt."""

    def __init__(self, base, name):
        self.base, self.name = base, name
        self.renewal = os.path.join(base, "renewal", name + ".conf")
        self.live, self.archive = (os.path.join(base, kind, name) for kind in ("live", "archive"))
        self.fullchain = os.path.join(self.live, "fullchain.pem")
        self.stop = os.path.join(base, KEPT, name + ".stop")

    def places(self):
        """Return the places where there is something."""
        places = [path for path in (self.renewal, self.archive, self.live) if os.path.lexists(path)]
        return [path for path in places if not os.path.isdir(path) or os.listdir(path)]

    def broken(self):
        """Return why certbot cannot go on from this lineage, or "", also when there is none."""
        if not self.places():
            return ""
        if read(self.renewal) is None:
            return "%s is not there, but other parts of the certificate are" % self.renewal
        saved, fault = settings(read(self.renewal).decode(errors="replace"))
        if fault:
            return "%s cannot be read: %s" % (self.renewal, fault)
        archive = os.path.realpath(saved.get("archive_dir", self.archive))
        faults = [self._fault(kind, saved.get(kind, ""), archive) for kind in KINDS]
        return next(filter(None, faults), "") or self._mismatch()

    def _fault(self, kind, saved, archive):
        link = os.path.join(self.live, kind + ".pem")
        if os.path.realpath(os.path.dirname(saved)) != os.path.realpath(self.live):
            return "%s does not lead to %s" % (self.renewal, link)
        if not os.path.islink(link):
            there = "is a file, not a link to certbot's archive" if os.path.exists(link) else "is not there"
            return "%s %s" % (link, there)
        target = os.path.join(self.live, os.readlink(link))
        if not read(link):
            there = "not there" if read(link) is None else "empty"
            return "%s leads to %s, which is %s" % (link, target, there)
        named = re.match(r"%s\d+\.pem$" % kind, os.path.basename(target))
        if not named or os.path.realpath(os.path.dirname(target)) != archive:
            return "%s leads to %s, which is not in certbot's archive" % (link, target)
        return ""

    def _mismatch(self):
        key = os.path.join(self.live, "privkey.pem")
        for name in ("cert.pem", "fullchain.pem"):
            fault = unfit(os.path.join(self.live, name), key)
            if fault:
                return fault
        return ""

    def account(self, server):
        """Return the arguments that choose an account, where certbot would ask which one to use.

        An account that cannot be read would end certbot. It is moved to where lineages are kept.
        """
        accounts = os.path.realpath(os.path.join(self.base, "accounts"))
        folder = os.path.join(accounts, server.partition("://")[2])
        names = []
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            if all(is_json(os.path.join(path, part + ".json")) for part in ("regr", "meta", "private_key")):
                names.append(name)
            elif re.match(r"[0-9a-f]{32}$", name):
                kept = os.path.join(os.path.dirname(accounts), KEPT, "accounts", name)
                os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
                remove(kept)
                os.rename(path, kept)
        saved = re.search(rb"^account\s*=\s*(\S+)", read(self.renewal) or b"", re.M)
        named = saved.group(1).decode(errors="replace") if saved else ""
        newest = sorted(names, key=lambda name: os.stat(os.path.join(folder, name)).st_mtime)[-1:]
        return ["--account", named if named in names else newest[0]] if len(names) > 1 else []

    def replaced(self, why, order):
        """Order a new lineage in place of this one, which is kept. Returns the words about that.

        `order` is called with the lineage to order. Raises Problem, and then nothing has changed.
        """
        kept, new = (Lineage(os.path.join(self.base, name), self.name) for name in (KEPT, ORDER))
        if kept.places():
            words = "certbot cannot go on from this certificate: %s\nit was replaced before, and the former "
            words += "one is kept in %s, so no other was ordered\nchange: find the program that writes to %s "
            words += "(a panel, a backup, a copy from another machine); then move %s away and deploy again"
            raise Problem(words % (why, kept.base, self.live, kept.base))
        accounts = os.path.join(self.base, "accounts")
        os.makedirs(accounts, 0o700, exist_ok=True)
        shutil.rmtree(new.base, ignore_errors=True)
        os.makedirs(new.base, 0o700)
        try:
            os.symlink(accounts, os.path.join(new.base, "accounts"))
            order(new)
            self._adopt(new, kept)
        finally:
            shutil.rmtree(new.base, ignore_errors=True)
        return "certbot could not go on from this certificate: %s; it is kept in %s" % (why, kept.base)

    def _adopt(self, new, kept):
        text = read(new.renewal).decode().replace(new.base + "/", self.base + "/")
        with open(new.renewal, "w") as file:
            file.write(text)
        key = os.path.join(self.live, "privkey.pem")
        if os.path.exists(key):
            was, now = os.stat(key), os.path.join(new.live, "privkey.pem")
            os.chown(now, was.st_uid, was.st_gid)
            os.chmod(now, was.st_mode & 0o770)  # copies by scp are readable by everybody
        for lineage in (self, kept):
            for path in (lineage.renewal, lineage.archive, lineage.live):
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        for source, target in ((self, kept), (new, self)):
            for name in ("renewal", "archive", "live"):
                place = getattr(source, name)
                if os.path.lexists(place):
                    remove(getattr(target, name))
                    os.rename(place, getattr(target, name))

    def stopped(self):
        """Return why no more orders are made, or ""."""
        return (read(self.stop) or b"").decode(errors="replace")

    def stop_orders(self, why):
        """Make no more orders until an operator has looked. Raises Problem."""
        why += "\nno other certificate is ordered until this is fixed\n"
        why += "change: fix it, then remove %s and deploy again" % self.stop
        os.makedirs(os.path.dirname(self.stop), 0o700, exist_ok=True)
        with open(self.stop, "w") as file:
            file.write(why)
        raise Problem(why)


def order(acme, lineage, force):
    """Run certbot, and again after transient errors. Return where the certificate is.

    Raises Problem with the server's reason.
    """
    argv = certbot(acme["certbot"]) + ["certonly", "--non-interactive", "--agree-tos"]
    argv += [ "--config-dir", lineage.base, "--no-directory-hooks", "--server", acme["server"]]
    argv += ["--email", acme["contact"]] if acme["contact"] else ["--register-unsafely-without-email"]
    argv += ["--cert-name", lineage.name, "--renew-with-new-domains"] + lineage.account(acme["server"])
    for name in acme["names"]:
        argv += ["--ip-address" if is_address(name) else "--domain", name]
    argv += ["--preferred-profile", acme["profile"]] if acme["profile"] else []
    argv += acme["authenticator"] + ["--deploy-hook", "%s deploy --hook" % acme["hook"]]
    argv += ["--force-renewal"] if force else ["--keep-until-expiring"]
    env = dict(os.environ, **dict(acme["environment"], **{IN_ORDER: "1"}))
    if acme["account"]:
        argv += ["--eab-kid", acme["account"]["key_id"]]
        env[OUR_INI] = acme["account"]["file"]
    env.update({"REQUESTS_CA_BUNDLE": acme["ca"]} if acme["ca"] else {})
    deadline = time.monotonic() + TRANSIENT_S
    status, output = run(argv, env)
    while status and any(text in output for text in TRANSIENT) and time.monotonic() < deadline:
        time.sleep(3)
        status, output = run(argv, env)
    if status:
        raise Problem(explain(output), next(iter(kinds(output)), ""))
    saved = re.search(r"^Certificate is saved at:\s*(\S+)", output, re.M)
    return os.path.normpath(saved.group(1)) if saved else lineage.fullchain


def wrong_clock(server):
    """Return how this host's clock differs from the ACME server's, or "".

    A wrong clock makes good certificates overdue, and servers untrusted. So the server's own
    certificate is not checked here: its answer can only stop an order.
    """
    # Orders are rare, and every check would pay for these.
    import http.client
    import urllib.request
    from email.utils import parsedate_to_datetime

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the host's roots
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(server, timeout=10, context=context) as answer:
            theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (OSError, TypeError, ValueError, http.client.HTTPException):
        return ""  # the order will name what is wrong
    ours = time.time()
    if abs(ours - theirs) < CLOCK_S:
        return ""
    words = "this host's clock is wrong: it says %s UTC, and %s says %s UTC\nchange: set the clock "
    words += "(timedatectl set-ntp true; timedatectl says whether that works), then deploy again"
    shown = [time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment)) for moment in (ours, theirs)]
    return words % (shown[0], server, shown[1])


def certbot(folder):
    """Return the command of the certbot in `folder`, or of the distribution's, without cli.ini."""
    if folder:
        return [sys.executable, "-I", os.path.abspath(__file__), folder]
    path = shutil.which("certbot") or "certbot"
    python = re.match(rb"#!\s*(/\S*python[0-9.]*)", read(path) or b"")
    return [python.group(1).decode(), "-I", os.path.abspath(__file__), ""] if python else [path]


def settings(text):
    """Return (the settings above the first section of certbot's file, why it is wrong or "")."""
    seen, top, section = set(), {}, ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        head = re.match(r"(\[+)[^\[\]]+(\]+)$", line)
        pair = re.match(r"([^=\[\]]+?)\s*=\s*(.*)$", line)
        name = line if head else "%s %s" % (section, pair.group(1)) if pair else ""
        quote = pair.group(2)[:1] if pair and not head else ""
        open_ended = quote in ("'", '"') and pair.group(2).count(quote) % 2
        if not name or name in seen or open_ended or (head and len(head.group(1)) != len(head.group(2))):
            return top, "line %d is wrong: %s" % (number, line[:80])
        seen.add(name)
        section = line if head else section
        if pair and not section:
            top[pair.group(1)] = pair.group(2)
    return top, "" if top else "it is empty"


def unfit(chain, key):
    """Return why a server could not start with this chain and key, or ""."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain, key, password=lambda: "")
    except (OSError, ValueError) as error:
        return "%s and %s are no certificate with its key: %s" % (chain, key, error)
    return ""


def run(argv, env=None, given=b""):
    """Return (exit status, standard output and error together)."""
    try:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(argv, env=env, cwd="/", **pipes)
    except OSError as error:
        return 127, "%s: %s" % (argv[0], error.strerror)
    output = process.communicate(given)[0]
    return process.returncode, output.decode(errors="replace")


def read(path):
    """Return the content, or None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def is_address(name):
    """Whether the name is an IP address, which certificates hold in another form."""
    return bool(re.search(r"^[0-9.]+$|:", name))


def is_json(path):
    """Whether the file is there and holds JSON."""
    try:
        json.loads((read(path) or b"").decode())
    except ValueError:
        return False
    return True


def remove(path):
    """Remove the file, link or folder at `path`, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def kinds(output):
    """Return the kinds of problems that certbot's output names, the most exact first."""
    found = re.findall(r"^\s*Type:\s*(\S+)", output, re.M)
    found += re.findall(r"urn:ietf:params:acme:error:(\w+)", output)
    return found + [kind for text, kind in SPOKEN if text in output]


def explain(output):
    """Return the ACME server's reason in words, taken from certbot's output."""
    found = kinds(output)[:1]
    details = [detail.strip() for detail in re.findall(r"^\s*Detail:\s*(.*)$", output, re.M)]
    if not details:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        details = [line for line in lines if not line.startswith(NOISE)][-4:]
    lines = ["no certificate: " + "".join(kind + ": " for kind in found) + " ".join(details)]
    lines += ["change: " + ADVICE[kind] for kind in found if kind in ADVICE]
    lines.append("certbot's log is /var/log/letsencrypt/letsencrypt.log")
    return "\n".join(lines)


def run_certbot(folder, *arguments):
    """Run certbot without cli.ini, of the release in `folder`, or of this Python if that is "".

    The hooks and options of another program are not for our orders. certbot has no option for that.
    """
    sys.path[:0] = filter(None, [folder])
    try:
        from certbot._internal import constants
    except ImportError:
        from certbot import constants
    from certbot.main import main

    # It has the key of an external account: certbot logs arguments, and everybody may see them.
    constants.CLI_DEFAULTS["config_files"] = list(filter(None, [os.environ.get(OUR_INI)]))
    sys.argv = ["certbot", *arguments]
    return main()


if __name__ == "__main__":
    sys.exit(run_certbot(*sys.argv[1:]))
