"""A SLURM of two nodes on this machine: real daemons on loopback, GPUs that only look like ones.

No slurmdbd, no cgroups, no systemd. It needs root and Debian's packages slurm-wlm and munge.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "squeue", "scancel", "sinfo")
NODES = ("node1", "node2")
PREFIX = "s2txai-slurm-"  # of the folder of such a SLURM, by which another run knows it
# Where the inner `srun` of a job looks: the plugin takes SLURM_CONF out of its environment.
ETC = Path("/etc/slurm")

# Virtual sizes, hence config_overrides. Memory is sampled, without cgroups. MinJobAge: without
# slurmdbd only slurmctld knows how a job ended, and the plugin must hear of it in time.
SLURM_CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
MinJobAge=3600
MessageTimeout=60
ReturnToService=2
KillWait=3
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} {size}
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} {size}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=04:00:00 State=UP
PartitionName=gpu Nodes=ALL Default=NO MaxTime=04:00:00 State=UP
"""
SIZE = "CPUs=10 RealMemory=24000 Gres=gpu:fake:2 State=UNKNOWN"
# The digit at the end of a device's name becomes CUDA_VISIBLE_DEVICES.
GRES_CONF = """\
AutoDetect=off
NodeName=node[1-2] Name=gpu Type=fake Flags=nvidia_gpu_env File={root}/dev/gpu[0-1]
"""


def why_not() -> str:
    """Return what keeps a SLURM from being started here; empty where nothing does."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=_search())]
    if missing:
        return f"no {', '.join(missing)}: apt-get install --no-install-recommends slurm-wlm munge"
    if os.geteuid() != 0:
        return "its daemons need root"
    if any(_is_there(ETC / name) and not _is_ours(ETC / name) for name in _CONFIGS):
        return f"{ETC} holds the configuration of another SLURM"
    return ""


def _is_there(path: Path) -> bool:
    # A link that leads nowhere at the moment is somebody's, too.
    return path.is_symlink() or path.exists()


def _is_ours(path: Path) -> bool:
    return path.is_symlink() and path.readlink().parent.name.startswith(PREFIX)


class LocalSlurm:
    """The cluster; a context manager that starts it, and stops it with all its jobs.

    What a run left that was killed is stopped first.

    Attributes
    ----------
    root
        Where all of its files lie but the links in ``/etc/slurm``.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    def __enter__(self) -> "LocalSlurm":
        ETC.mkdir(exist_ok=True)
        self._lock = lock(ETC)
        stop_leftovers()
        # Short, for the sake of the socket's name.
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Another user's daemons would refuse what they cannot enter.
        self.root.chmod(0o755)
        try:
            self._write()
            _hide_sacct()
            self._start()
            self._wait_for_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        os.close(self._lock)

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self._cancel_all()
        for pid in self.daemons():
            _end(pid)
        for name in _CONFIGS:
            if (ETC / name).is_symlink() and (ETC / name).readlink() == self.root / name:
                (ETC / name).unlink()
        _show_sacct()
        shutil.rmtree(self.root, ignore_errors=True)

    def daemons(self) -> list[int]:
        """Return the running daemons' numbers, in the order in which they are stopped."""
        # The controller last but one, munged last: each is asked by those before it.
        order = ("slurmd.*.pid", "slurmctld.pid", "munged.pid")
        paths = [path for name in order for path in sorted((self.root / "run").glob(name))]
        # The number that a killed run left may be another process's by now.
        return [pid for path in paths if running_program(pid := int(path.read_text())) in DAEMONS]

    def logs(self) -> str:
        """Return the ends of the daemons' logs, for the message of a failed test."""
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-2000:]}"
            for path in sorted((self.root / "log").glob("*"))
        )

    def _write(self) -> None:
        for name in ("run", "log", "state", "dev", "spool.node1", "spool.node2"):
            (self.root / name).mkdir()
        key = self.root / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        for number in (0, 1):
            # slurmd takes devices only; these are further names of /dev/null.
            device = self.root / "dev" / f"gpu{number}"
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        host = socket.gethostname().split(".")[0]
        facts = {"root": self.root, "host": host, "size": SIZE, "ports": _free_ports(3)}
        for name, text in _CONFIGS.items():
            (self.root / name).write_text(text.format(**facts))
            (ETC / name).unlink(missing_ok=True)  # ours, as `why_not` made sure
            (ETC / name).symlink_to(self.root / name)

    def _start(self) -> None:
        run, log = self.root / "run", self.root / "log"
        _call(
            "munged", "--force",  # or it refuses folders under /tmp, which all may write to
            f"--socket={run}/munge.socket", f"--key-file={self.root}/munge.key",
            f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log",
            f"--seed-file={self.root}/munge.seed",
        )  # fmt: skip
        # munged makes the folder of its socket its own.
        run.chmod(0o755)
        _call("slurmctld")
        for node in NODES:
            _call("slurmd", "-N", node)

    def _ask(self, *command: str) -> str:
        env = {**os.environ, "SLURM_CONF": str(self.root / "slurm.conf")}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=90, env=env
        )
        return done.stdout.strip()

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            states = self._ask("sinfo", "-h", "-N", "-p", "cpu", "-o", "%t").split()
            # `idle*` is a node that does not answer.
            if states == ["idle"] * len(NODES):
                return
            time.sleep(0.2)
        raise TimeoutError(f"the nodes did not come up\n{self.logs()}")

    def _cancel_all(self) -> None:
        controller = self.root / "run" / "slurmctld.pid"
        if not controller.exists() or running_program(int(controller.read_text())) != "slurmctld":
            return
        self._ask("scancel", "--user=root")
        deadline = time.monotonic() + 60
        while self._ask("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)


def lock(folder: Path) -> int:
    """Lock a folder until the returned file descriptor is closed, or this process ends.

    Raises
    ------
    RuntimeError
        If another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RuntimeError(
            f"These tests run on this machine already, and two cannot share {folder}; wait."
        ) from None
    return descriptor


def stop_leftovers(folder: Path | None = None) -> None:
    """Stop each SLURM in a folder, that of temporary files, whose run was killed.

    Whoever holds the lock knows that none of them is in use.
    """
    for root in sorted((folder or Path(tempfile.gettempdir())).glob(f"{PREFIX}*")):
        LocalSlurm(root).stop()


_CONFIGS = {"slurm.conf": SLURM_CONF, "gres.conf": GRES_CONF}


def _search() -> str:
    """Daemons lie where the path of a plain user does not lead."""
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _call(*command: str) -> None:
    """Start a daemon, which puts itself into the background."""
    subprocess.run(
        command,
        env={**os.environ, "PATH": _search()},
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        # A pipe would stay open in the daemon, and be waited for.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def running_program(pid: int) -> str:
    """Return the name of a process; empty where there is none, or one that has ended."""
    # "1834 (slurmd) S ...", or Z for what nobody has waited for yet.
    before, _, after = _text(Path(f"/proc/{pid}/stat")).rpartition(")")
    return "" if after.startswith(" Z") else before.partition("(")[2]


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            if not running_program(pid):
                return
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def _sacct() -> Path | None:
    path = Path("/usr/bin/sacct")
    return path if path.exists() else None


def _hide_sacct() -> None:
    """Where the plugin sees it, it asks it, and without slurmdbd no answer ever comes."""
    if path := _sacct():
        path.chmod(path.stat().st_mode & ~0o111)


def _show_sacct() -> None:
    # Packages ship it executable, so also after a killed run.
    if path := _sacct():
        path.chmod(path.stat().st_mode | 0o111)
