"""Run a suite on the GPUs of a SLURM cluster: a Dask worker a GPU, each in a job of its own.

    pip install -e '.[dask]' dask-jobqueue
    python examples/slurm_cluster.py imagenet64 --gpus 64 --queue gpu --walltime 24:00:00 -- --store /shared/store

Start it where jobs may be submitted and workers can connect back, in a terminal that stays (tmux).  What follows ``--``
goes to ``dbn-bench run``.  The working folder, the store and the data must be on a file system that all nodes share.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import dask
from dask_jobqueue import SLURMCluster

# How often a node may lose its worker, to the end of a job or to preemption; Dask's own limit is 3.
ALLOWED_FAILURES = 100


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Run a suite on the GPUs of a SLURM cluster.", epilog="Options after -- go to dbn-bench run."
    )
    parser.add_argument("suite", help="a built-in suite, or the path of a .toml file")
    parser.add_argument("--gpus", type=int, default=8, help="jobs at a time, each with one GPU")
    parser.add_argument("--queue", help="SLURM partition")
    parser.add_argument("--account", help="SLURM account")
    parser.add_argument("--walltime", default="24:00:00", help="of a job; a training that is cut off goes on elsewhere")
    parser.add_argument("--cpus", type=int, default=8, help="CPU cores of a job")
    parser.add_argument("--memory", default="64GB", help="memory of a job")
    parser.add_argument("--gres", default="gpu:1", help="SLURM's name of one GPU")
    parser.add_argument("--interface", help="network interface that the nodes share, for example ib0")
    parser.add_argument("--prologue", action="append", default=[], help="line of the job script; may be repeated")
    parser.add_argument("--show", action="store_true", help="print the job script and submit nothing")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.options = words[end + 1 :]
    return args


def start_cluster(args: argparse.Namespace) -> SLURMCluster:
    """A scheduler in this process; no job is submitted yet."""
    dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES})
    return SLURMCluster(
        queue=args.queue,
        account=args.account,
        walltime=args.walltime,
        interface=args.interface,
        processes=1,
        cores=1,  # one thread, so that a worker has one node at a time
        job_cpu=args.cpus,
        memory=args.memory,
        job_extra_directives=[f"--gres={args.gres}"],
        job_script_prologue=[f"export OMP_NUM_THREADS={args.cpus}", *args.prologue],
        python=sys.executable,
        log_directory="slurm-logs",
    )


def run(command: list[str]) -> int:
    """Run ``command``; at Ctrl-C it stops by itself, and this waits for it."""
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def main() -> int:
    """Start the cluster, run the suite on it, and end its jobs."""
    args = arguments()
    with start_cluster(args) as cluster:
        if args.show:
            print(cluster.job_script())
            return 0
        # Not `scale`: this also submits another job for one that ended or was preempted.
        cluster.adapt(minimum_jobs=args.gpus, maximum_jobs=args.gpus)
        address = cluster.scheduler_address.partition("://")[2]
        print(f"Scheduler: dask://{address}", flush=True)
        threads = ["--device", "cuda", "--threads", str(args.cpus)]
        return run(["dbn-bench", "run", args.suite, "--executor", f"dask://{address}", *threads, *args.options])


if __name__ == "__main__":
    sys.exit(main())
