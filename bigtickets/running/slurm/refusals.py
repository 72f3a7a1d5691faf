"""Why sbatch said no, and what to do about it."""

from bigtickets.running.slurm.limits import one_line

# Words of sbatch -> what to look at. The first that fits.
REMEDIES = (
    ("invalid account", "key `account` (or its use of this partition)"),
    ("invalid qos", "key `qos`"),
    ("invalid partition", "keys `partition` and `light_partition`"),
    ("not permitted to use this partition", "key `partition`: this account may not use it"),
    ("generic resource", "keys `gres` and `gpus_per_node`"),
    ("invalid gres", "keys `gres` and `gpus_per_node`"),
    ("time limit", "key `time`: more than the partition or QOS allows"),
    ("invalid feature", "key `constraint`"),
    ("reservation", "key `reservation`"),
    ("invalid node name", "key `exclude`"),
    ("memory", "key `memory_gb`: more than a node has"),
    ("node configuration is not available", "keys `gpus_per_node`, `cpus` and `memory_gb`"),
    ("more processors requested", "keys `cpus` and `processes_per_node`"),
    ("job array specification", "MaxArraySize of this cluster: key `max_submitted`"),
    ("unrecognized option", "key `extra`"),
    ("invalid option", "key `extra`"),
    ("submit limit", "a limit of the account or QOS: key `max_submitted`, or wait for other jobs"),
    ("maxsubmit", "a limit of the account or QOS: key `max_submitted`, or wait for other jobs"),
    ("accounting/qos policy", "limits of the account or QOS: keys `time`, `gpus_per_node`, `qos`"),
)
LIMITS = ("submit limit", "maxsubmit", "accounting/qos policy", "job array specification")
# After these the job may be there or not: only a look at the queue tells.
UNCLEAR = (
    "unable to contact",
    "socket timed out",
    "timed out",
    "zero bytes",
    "communication",
    "connection",
    "try again",
    "temporarily",
    "slurm_receive_msg",
)


def explain(stderr: str) -> str:
    """One line: sbatch's words, and the key of the cluster file to look at."""
    remedy = next((what for words, what in REMEDIES if words in stderr.lower()), None)
    said = f"sbatch refused it: {one_line(stderr)}"
    return f"{said}; look at {remedy}" if remedy else said


def is_limit(stderr: str) -> bool:
    """Whether fewer jobs might be taken."""
    return any(words in stderr.lower() for words in LIMITS)


def is_unclear(stderr: str) -> bool:
    """Whether the job may have been taken although sbatch failed."""
    return any(words in stderr.lower() for words in UNCLEAR)
