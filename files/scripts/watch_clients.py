"""Print how many clients a relay has, again and again: `WANTED SECONDS COMMAND …`.

COMMAND prints the relay's metrics. Each line is `CLIENTS STARTED NOW`: the number, and two times in
seconds since 1970. It ends when WANTED are there, or after SECONDS.
"""

import re
import subprocess
import sys
import time

wanted, patience_s, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
until = time.monotonic() + patience_s
while True:
    asked = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    page, now = asked.communicate()[0].decode(errors="replace"), time.time()
    clients = re.search(r"^derp_clients_local (\d{1,9})\b", page, re.M)
    started = re.search(r"^process_start_unix_time ([\d.]{1,20})", page, re.M)
    if clients and started:
        print(clients.group(1), started.group(1), "%.2f" % now, flush=True)
        if int(clients.group(1)) >= wanted:
            break
    if time.monotonic() > until:
        break
    time.sleep(0.2)
