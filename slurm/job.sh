#!/bin/bash
# One job of a study, as `bigtickets submit` hands it to sbatch. Nothing is written into this file:
# what varies arrives as sbatch flags, as the words after the script's name (those of
# `python -m bigtickets.running.slurm.job`), and as environment:
#   BIGTICKETS_PYTHON     the Python to run
#   BIGTICKETS_SETUP      file with the cluster file's setup lines, or empty
#   BIGTICKETS_CONTAINER  file with the words to put before Python, one per line, or empty
#   BIGTICKETS_SCRATCH    node-local folder, or $NAME of a variable that holds it, or empty
#   BIGTICKETS_SECONDS    seconds from now until a slot must save and stop, or empty
#   BIGTICKETS_REQUEUES   how often the job may queue itself again
set -u
started=$(date +%s)
stage=$1
life=${SLURM_RESTART_COUNT:-0}
id=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_JOB_ID-}" ]; then
  # The bare number would requeue the whole array.
  id=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
fi
echo "bigtickets: job $id, life $life, on ${SLURM_JOB_NODELIST-?}, $(date)"

if [ -n "${BIGTICKETS_SETUP-}" ]; then
  set +u # modules and conda read variables that are not set
  # shellcheck source=/dev/null
  source "$BIGTICKETS_SETUP" || { echo "bigtickets: the setup lines failed"; exit 2; }
  set -u
fi

# Since 22.05 srun does not take it from sbatch: processes would share one CPU.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export PYTHONUNBUFFERED=1

container=()
if [ -n "${BIGTICKETS_CONTAINER-}" ]; then
  mapfile -t container <"$BIGTICKETS_CONTAINER"
fi
command=("${container[@]}" "$BIGTICKETS_PYTHON" -P -m bigtickets.running.slurm.job "$@")
command+=(--job "$id" --cpus "$SRUN_CPUS_PER_TASK")

if [ "$stage" = prefetch ] || [ "$stage" = finish ]; then
  exec "${command[@]}"
fi

# Compilers' caches on the node's own disk; per job, because a killed build leaves its lock behind.
scratch=${BIGTICKETS_SCRATCH-}
case $scratch in
  '$'*)
    name=${scratch#?}
    scratch=${!name-}
    ;;
esac
if [ -n "$scratch" ]; then
  caches=$scratch/bigtickets-$SLURM_JOB_ID
  export TRITON_CACHE_DIR=$caches/triton TORCHINDUCTOR_CACHE_DIR=$caches/inductor
  export TORCH_EXTENSIONS_DIR=$caches/extensions
  trap 'rm -rf -- "$caches"' EXIT
fi

nodes=${SLURM_NNODES:-1}
if [ "$nodes" -gt 1 ]; then
  command+=(--head "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)")
fi
command+=(--nodes "$nodes" --until $((started + BIGTICKETS_SECONDS)))

# Slurm sends USR2 to this shell alone, some time before the limit; srun hands it on to all
# processes. TERM (preemption, scancel, the limit itself) reaches them without us.
terminated=
step=
trap '[ -z "$step" ] || kill -USR2 "$step"' USR2
trap 'terminated=1' TERM

try=0
deaths=0
while :; do
  began=$(date +%s)
  # bash in between: each node says its own number, and USR2 is ignored until Python listens.
  # shellcheck disable=SC2016
  srun --ntasks-per-node=1 --nodes="$nodes" --kill-on-bad-exit=1 --wait=120 --unbuffered \
    bash -c 'trap "" USR2; exec "$@" --node "$SLURM_NODEID"' node \
    "${command[@]}" --attempt "$life-$try" &
  step=$!
  while :; do # a signal ends `wait`, not the step
    wait "$step"
    code=$?
    kill -0 "$step" 2>/dev/null || break
  done
  if [ "$code" -eq 143 ]; then
    terminated=1
  fi
  # 70: a group over several nodes died; above 128: something was killed. Start it again, but not
  # for ever where it dies young.
  if [ -n "$terminated" ] || { [ "$code" -ne 70 ] && [ "$code" -le 128 ]; }; then
    break
  fi
  deaths=$((deaths + 1))
  if [ $(($(date +%s) - began)) -gt 600 ]; then
    deaths=1
  fi
  if [ "$deaths" -ge 5 ]; then
    break
  fi
  try=$((try + 1))
  echo "bigtickets: ended with $code, starting again"
done

if [ "$code" -eq 75 ] && [ -z "$terminated" ]; then
  if [ "$life" -ge "$BIGTICKETS_REQUEUES" ]; then
    echo "bigtickets: queued again $life times already; the last job goes on with what is left"
  elif scontrol requeue "$id"; then
    sleep 600 # until Slurm ends this life
  else
    echo "bigtickets: cannot be queued again; the last job goes on with what is left"
  fi
fi
exit "$code"
