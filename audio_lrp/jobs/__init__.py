"""One job queue for work on several processes and machines, over Optuna's storage: studies and sweeps run on it.

A *job* is a cell of a study or a point of a sweep, and a string names it. An *attempt* at a job is a trial of an Optuna
study. A worker is a process that does one job after the other; a supervisor is the command that the user has typed,
which keeps its workers alive and tells the supervisors that share the queue, on this machine and on others, that it
lives. Nothing about the progress is kept but the attempts.
"""

from audio_lrp.jobs.queue import FAILURE, JOB, Queue
from audio_lrp.jobs.storage import default_storage, open_study, storage_errors
from audio_lrp.jobs.supervisor import supervise
from audio_lrp.jobs.worker import Work

__all__ = ["FAILURE", "JOB", "Queue", "Work", "default_storage", "open_study", "storage_errors", "supervise"]
