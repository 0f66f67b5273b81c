"""Free memory is what the machine has, and no more than a container's limit leaves."""

import pytest

from psarm.benchmarks.memory import free_memory

VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


@pytest.fixture
def machine(tmp_path):
    """Folders /proc, with 1000 kB available, and /sys/fs/cgroup."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemFree: 9 kB\nMemAvailable:    1000 kB\n")
    return tmp_path / "proc", tmp_path / "cgroup"


def limit(folder, names, most, used, cached=0):
    folder.mkdir(parents=True, exist_ok=True)
    most_name, used_name, cache_name = names
    (folder / most_name).write_text(f"{most}\n")
    (folder / used_name).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\n{cache_name} {cached}\n")


def test_without_control_groups_it_is_what_the_machine_has(machine):
    proc, cgroups = machine
    assert free_memory(proc, cgroups) == 1000 * 1024
    (proc / "self" / "cgroup").write_text("0::/\n")
    assert free_memory(proc, cgroups) == 1000 * 1024
    (proc / "meminfo").unlink()
    assert free_memory(proc, cgroups) is None


@pytest.mark.parametrize(
    ("listed", "top", "names"),
    [("0::/a/b\n", ".", VERSION_2), ("3:cpu:/x\n2:memory,hugetlb:/a/b\n0::/a/b\n", "memory", VERSION_1)],
)
def test_the_tightest_limit_counts(machine, listed, top, names):
    proc, cgroups = machine
    (proc / "self" / "cgroup").write_text(listed)
    unlimited = "max" if names is VERSION_2 else 9223372036854771712
    limit(cgroups / top / "a" / "b", names, unlimited, 100)
    assert free_memory(proc, cgroups) == 1000 * 1024
    limit(cgroups / top, names, 5000, 1000, cached=300)
    assert free_memory(proc, cgroups) == 4300
    limit(cgroups / top / "a", names, 900, 500)
    assert free_memory(proc, cgroups) == 400
    limit(cgroups / top / "a" / "b", names, 100, 101)
    assert free_memory(proc, cgroups) == 0


def test_a_path_of_the_host_is_the_containers_top(machine):
    proc, cgroups = machine
    (proc / "self" / "cgroup").write_text("0::/../../docker/123\n")
    limit(cgroups, VERSION_2, 700, 200)
    assert free_memory(proc, cgroups) == 500
