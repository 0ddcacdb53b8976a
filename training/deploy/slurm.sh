#!/bin/bash
# Two machines, a worker on each with all of its GPUs. Adapt the numbers and what is trained;
#   sbatch --export=ALL,DATA=/shared/tfds,RUNS=/shared/runs training/deploy/slurm.sh
# Five minutes before its time is over the run is saved and queued again, as often as it takes.
#SBATCH --job-name=prelu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

config=${CONFIG:-imagenet_c}
srun --kill-on-bad-exit=0 python -m training fit --config "$config" --data_dir "$DATA" --workdir "$RUNS/$config" $FLAGS
status=$?
if [ $status -eq 143 ]; then # saved after SIGTERM
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
