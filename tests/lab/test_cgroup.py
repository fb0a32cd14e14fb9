from __future__ import annotations

from pathlib import Path

from lab.cgroup import own_groups

V1 = (
    """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 21 0:30 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
41 40 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
42 40 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
43 40 0:33 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
44 40 0:34 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
""",
    "9:name=systemd:/\n4:memory:/jobs/17\n3:cpu,cpuacct:/\n0::/\n",
)
V2 = (
    "30 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
    "0::/user.slice/session 1.scope\n",
)


def test_a_hosts_groups_are_below_our_own_so_that_our_limits_hold() -> None:
    assert own_groups(*V1) == [
        Path("/sys/fs/cgroup/cpu,cpuacct"),
        Path("/sys/fs/cgroup/memory/jobs/17"),
        Path("/sys/fs/cgroup/systemd"),
        Path("/sys/fs/cgroup/unified"),
    ]
    assert own_groups(*V2) == [Path("/sys/fs/cgroup/user.slice/session 1.scope")]


def test_mount_points_are_unescaped() -> None:
    assert own_groups("30 22 0:26 / /odd\\040place rw - cgroup2 cgroup2 rw\n", "0::/\n") == [
        Path("/odd place")
    ]


def test_a_machine_without_groups_has_none() -> None:
    assert own_groups("21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n", "") == []
