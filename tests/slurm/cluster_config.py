"""The configuration files of a test cluster, as text."""

import getpass
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """What a test cluster looks like."""

    nodes: int = 4
    cpus: int = 8
    """Per node, as told to SLURM: more than the machine has is fine."""
    gpus: int = 4
    """Per node; each is a name for /dev/null."""
    memory_mb: int = 64000
    max_array_size: int = 1001
    extra: str = ""
    """More lines for slurm.conf."""

    @property
    def names(self) -> list[str]:
        """node1, node2, ..."""
        return [f"node{i}" for i in range(1, self.nodes + 1)]


@dataclass(frozen=True)
class Address:
    """Where a daemon listens."""

    host: str
    port: int


# A requeued job waits cred_expire + 1 seconds: 121 by default, 5 is the least allowed.
# The three partitions differ in nothing but who may push whom aside.
SLURM_CONF = """\
ClusterName=bigtickets
SlurmctldHost={host}({controller.host})
SlurmctldPort={controller.port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_per_cpu}
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_continue
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=5
SlurmctldTimeout=10
MessageTimeout=10
KillWait=5
UnkillableStepTimeout=60
InactiveLimit=30
MinJobAge=3600
MaxArraySize={shape.max_array_size}
MaxJobCount=20000
PropagateResourceLimits=NONE
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=100 PreemptMode=OFF
{shape.extra}
"""


def write_config(
    folder: Path, shape: Shape, controller: Address, nodes: dict[str, Address]
) -> None:
    """Write slurm.conf, gres.conf, cgroup.conf and the nodes' hosts file into `folder`."""
    gres = f" Gres=gpu:{shape.gpus}" if shape.gpus else ""
    lines = [
        f"NodeName={name} NodeHostname={name} NodeAddr={at.host} Port={at.port} "
        f"CPUs={shape.cpus} RealMemory={shape.memory_mb}{gres} State=UNKNOWN"
        for name, at in nodes.items()
    ]
    host = socket.gethostname().split(".")[0]
    text = SLURM_CONF.format(
        folder=folder,
        shape=shape,
        host=host,
        user=getpass.getuser(),
        controller=controller,
        memory_per_cpu=shape.memory_mb // shape.cpus // 2,
        nodes="\n".join(lines),
    )
    (folder / "slurm.conf").write_text(text)
    # Or slurmd insists on a mounted /sys/fs/cgroup.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    _write_gres(folder, shape.gpus)
    known = [f"127.0.0.1 localhost\n{controller.host} {host}\n"]
    hosts = known + [f"{at.host} {name}\n" for name, at in nodes.items()]
    (folder / "hosts").write_text("".join(hosts))


def _write_gres(folder: Path, gpus: int) -> None:
    """A device must be a character device, which a link to one is."""
    (folder / "dev").mkdir()
    for i in range(gpus):
        (folder / "dev" / f"gpu{i}").symlink_to("/dev/null")
    line = f"Name=gpu File={folder}/dev/gpu[0-{gpus - 1}]\n" if gpus else ""
    (folder / "gres.conf").write_text(line)
