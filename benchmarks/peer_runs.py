"""A child process that plays one trace on somebody else's simulator, from a checkout, and times it.

Like a test drive in the maker's own car: their classes do everything, we hand in the jobs and hold the watch. Runs
under the interpreter the checkout needs (pyss: Python 2.7), so it keeps to what both languages have.

On stdin one JSON object: ``peer``, ``checkout``, ``policy``, ``nodes``, ``gpus_per_node``, ``jobs`` (rows of submit,
devices, duration, limit, in seconds), ``spend_s`` and ``runs``. On stdout one: ``cpu_s`` (processor seconds of the best
run) and ``schedule`` (a start and an end for each job). A run is repeated up to ``runs`` times, as long as less than
``spend_s`` are spent. What is timed is the simulation alone: importing, reading and making job objects are not, nor is
writing Lucid's log and series to files when it is over.
"""

import json
import os
import resource
import sys
import tempfile

LUCID = {
    "fifo": "FirstInFirstOut",
    "sjf": "ShortestJobFirst",
    "srtf": "ShortestRemainingTimeFirst",
    "tiresias": "Tiresias",
}
PYSS = {
    "fifo": ("fcfs_scheduler", "FcfsScheduler"),
    "easy": ("easy_scheduler", "EasyBackfillScheduler"),
    "easy_sjbf": ("easy_sjbf_scheduler", "EasySJBFScheduler"),
    "easy_reverse": ("reverse_easy_scheduler", "ReverseEasyScheduler"),
    "easy_lookahead": ("lookahead_easy_scheduler", "LookAheadEasyBackFillScheduler"),
    "conservative": ("conservative_scheduler", "ConservativeScheduler"),
}
"""Policy -> module and class of the checkout."""


def spent_s():
    """Processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def best(make, work, read):
    """Make the objects anew, run, and read the schedule, for as often as was asked."""
    taken = []
    schedule = None
    while not taken or (len(taken) < ASKED["runs"] and sum(taken) < ASKED["spend_s"]):
        made = make()
        begin_s = spent_s()
        made = work(made)
        taken.append(spent_s() - begin_s)
        schedule = read(made)
    return {"cpu_s": min(taken), "schedule": schedule}


def lucid():
    """Lucid's tick simulator on one virtual cluster, consolidated placement."""
    import logging

    import pandas

    sys.path.insert(0, os.path.join(ASKED["checkout"], "simulation"))
    import cluster
    import job as jobs
    import policy

    def make():
        trace = jobs.Trace()
        for number, (submit_s, gpus, duration_s, _) in enumerate(ASKED["jobs"]):
            trace.append_job(
                jobs.Job(
                    pandas.Series(
                        {
                            "job_id": str(number), "vc": "vc", "gpu_num": gpus, "submit_time": int(submit_s),
                            "duration": int(duration_s), "remain": int(duration_s), "start_time": sys.maxsize,
                            "end_time": sys.maxsize, "ckpt_times": 0, "queue": 0, "jct": 0, "status": None,
                            "gpu_util": 0, "gmem": 0,
                        },
                        dtype=object,
                    )
                )
            )  # fmt: skip
        machine = cluster.Cluster({"vc": ASKED["nodes"]}, ASKED["gpus_per_node"], 96)
        scheduler = getattr(policy, LUCID[ASKED["policy"]])(
            trace, machine.vc_list[0], "consolidate", tempfile.gettempdir(), logging.getLogger("lucid"), 0
        )
        scheduler.log_recorder = lambda _: None
        return scheduler

    def work(scheduler):
        scheduler.simulate()
        return scheduler

    def read(scheduler):
        by_number = sorted(scheduler.trace.job_list, key=lambda job: int(job["job_id"]))
        return [(int(job["start_time"]), int(job["end_time"])) for job in by_number]

    return best(make, work, read)


def pyss():
    """One of pyss' schedulers on a pool."""
    sys.path.insert(0, os.path.join(ASKED["checkout"], "src"))
    from base.prototype import Job
    from schedulers.simulator import Simulator

    module, name = PYSS[ASKED["policy"]]
    scheduler = getattr(__import__("schedulers." + module, fromlist=[name]), name)
    processors = ASKED["nodes"] * ASKED["gpus_per_node"]

    def make():
        return [
            Job(number, int(limit_s), int(duration_s), int(gpus), submit_time=int(submit_s))
            for number, (submit_s, gpus, duration_s, limit_s) in enumerate(ASKED["jobs"])
        ]

    def work(jobs):
        Simulator(jobs, processors, scheduler(processors)).run()
        return jobs

    def read(jobs):
        return [(job.start_to_run_at_time, job.finish_time) for job in jobs]

    return best(make, work, read)


if __name__ == "__main__":
    ASKED = json.load(sys.stdin)
    json.dump({"lucid": lucid, "pyss": pyss}[ASKED["peer"]](), sys.stdout)
