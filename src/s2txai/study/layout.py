"""Where results lie, and which jobs there are: read by rules, scripts and the estimate.

Paths are relative to the folder in which Snakemake runs.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from s2txai.study.plan import Key, Run, Study

RESULTS = "results"
RUN = f"{RESULTS}/{{dataset}}/{{model}}/{{task}}"
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
STORE = f"{RESULTS}/.cache"

REPORT = f"{RESULTS}/report"
PAGE = f"{REPORT}/index.html"
COMPARISONS = f"{RESULTS}/comparisons.csv"
# Written last, when no utterance failed.
COMPLETE = f"{RESULTS}/.complete"

MODELS = "resources/models"


@dataclass(frozen=True)
class Step:
    """A step of the workflow.

    Attributes
    ----------
    name
        Of its rule, rule file, script, module and test.
    per
        What there is a job for: ``shard`` also means each gradient method and each design of the
        perturbation, where the step has them.
    runs_model
        Whether its jobs load a model.
    only
        What a run needs for the step to have a job: ``designs`` of the perturbation or
        ``alignments`` of words; empty if it always has.
    """

    name: str
    per: Literal["shard", "run", "model", "study"]
    runs_model: bool = False
    only: Literal["", "designs", "alignments"] = ""


# In an order in which each follows those whose results it reads.
STEPS = (
    Step("fetch_model", per="model"),
    Step("decode", per="shard", runs_model=True),
    Step("transcripts", per="run"),
    Step("attention", per="shard", runs_model=True),
    Step("smx", per="shard", runs_model=True),
    Step("smh", per="shard", runs_model=True),
    Step("gradients", per="shard", runs_model=True),
    Step("aggregate", per="shard"),
    Step("correlate", per="run"),
    Step("comparisons", per="study"),
    Step("deletion", per="shard", runs_model=True),
    Step("deletion_curves", per="run"),
    Step("sensitivity", per="run", only="designs"),
    Step("timestamps", per="run", only="alignments"),
    Step("heads", per="run"),
    Step("failures", per="run"),
    Step("report", per="study"),
    Step("check_failures", per="study"),
)


def run_folder(key: Key) -> str:
    """Return the folder of the results of a run."""
    dataset, model, task = key
    return RUN.format(dataset=dataset, model=model, task=task)


def design_folder(design: str) -> str:
    """Return the folder of a design of the perturbation within that of its run."""
    return f"sensitivity/{design}"


def step_folders(step: str, study: Study) -> list[str]:
    """Return the folders of a step's shards within the folder of a run."""
    if step == "gradients":
        return list(study.methods)
    if step == "smx":
        return [step, *map(design_folder, study.designs)]
    return [step]


def shard_paths(run: Run, folder: str) -> list[str]:
    """Return the directory of every shard of a run in a folder of :func:`step_folders`."""
    return [f"{run_folder(run.key)}/{folder}/{shard}" for shard in run.shards]


def tables(study: Study, name: str) -> list[str]:
    """Return a table of every run."""
    return [f"{run_folder(key)}/{name}" for key in study.runs]


def timed_tables(study: Study, name: str) -> list[str]:
    """Return a table of word timestamps of every run that recognises aligned utterances."""
    return [
        f"{run_folder(key)}/timestamps/{name}" for key, run in study.runs.items() if run.aligned()
    ]


def all_shards(study: Study, folder: str) -> list[str]:
    """Return the directory of every shard of every run in a folder of :func:`step_folders`."""
    return [path for run in study.runs.values() for path in shard_paths(run, folder)]


def folders_with_failures(study: Study) -> Mapping[str, str]:
    """Return the name that failures give to their step, by the folder in which they lie."""
    return {
        folder: step.name if step.name != "gradients" else folder
        for step in STEPS
        if step.per == "shard"
        for folder in step_folders(step.name, study)
    }


def last_shards(study: Study, run: Run) -> list[str]:
    """Return the shards of the steps that no later one reads: they hold all failures of a run."""
    folders = ("deletion", *map(design_folder, study.designs))
    return [path for folder in folders for path in shard_paths(run, folder)]


def final_outputs() -> list[str]:
    """Return what a study ends with."""
    return [PAGE, COMPARISONS, COMPLETE]


def jobs_of_run(study: Study, run: Run) -> Counter[str]:
    """Return how many jobs of each step a run has."""
    jobs: Counter[str] = Counter()
    for step in STEPS:
        if step.per == "shard":
            jobs[step.name] = len(run.shards) * len(step_folders(step.name, study))
        elif step.per == "run":
            jobs[step.name] = int(_has(step, study, run))
    return +jobs


def _has(step: Step, study: Study, run: Run) -> bool:
    conditions = {"": True, "designs": bool(study.designs), "alignments": bool(run.aligned())}
    return conditions[step.only]


def model_jobs(study: Study, run: Run) -> int:
    """Return how many jobs of a run load its model."""
    n_jobs = jobs_of_run(study, run)
    return sum(n_jobs[step.name] for step in STEPS if step.runs_model)
