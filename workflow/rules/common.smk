# What the rule files share: the checked configuration and the names of files.

import json
import os
from pathlib import Path

from s2txai.datasets.files import read_yaml
from s2txai.errors import UserError
from s2txai.storage.failures import failures_where_met
from s2txai.study.fetch_model import model_files
from s2txai.study.plan import plan
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.storage.versions import ALGORITHM_VERSIONS

ROOT = Path(workflow.basedir)
# Shorter in messages where Snakemake runs in the project's own folder.
MODELS = os.path.relpath(ROOT / "resources" / "models")
RUN = "results/{dataset}/{model}/{task}"

try:
    for path in workflow.configfiles:
        read_yaml(Path(path))  # refuses a key given twice, of which Snakemake keeps the last
    STUDY = plan(config, ROOT)
except UserError as error:
    # Sentences, not a traceback into the parser.
    raise SystemExit(f"{error}")

for sentence in (*STUDY.missing, *STUDY.unusable):
    logger.warning(sentence)


onstart:
    # Known at once, and jobs of hours would come before the one that finds out.
    if STUDY.missing:
        raise SystemExit("\n".join(STUDY.missing))


onsuccess:
    # Targets on the way do not run the last job, `check_failures`.
    failed = failures_so_far()
    if failed:
        raise SystemExit(
            f"Not every utterance could be done: {len(failed):,} failed so far; docs/workflow.md says "
            f"how to go on. The first is '{failed[0].utterance}' in {failed[0].step}: {failed[0].message}"
        )


wildcard_constraints:
    dataset="|".join(re.escape(name) for name in STUDY.datasets),
    model="|".join(re.escape(name) for name in STUDY.models),
    task=r"asr-\w+|st-\w+-\w+",
    shard=r"\d{4}",
    design="|".join(re.escape(name) for name in STUDY.designs) or "none",
    method="|".join(GRADIENTS),


# Listed in the order of the registry: another order in the configuration is no reason to run again.
METHODS = [method for method in GRADIENTS if method in config["gradient"]["methods"]]
# What each method uses of the configuration.
GRADIENT_PARAMETERS = {
    "grad": {
        "n_segments": config["smx"]["n_segments"],
        "p": config["smx"]["p"],
        "n_masks": config["gradient"]["n_masks"],
        "seed": config["seed"],
    },
    "input_x_gradient": {},
    "integrated_gradients": {"n_points": config["gradient"]["n_points"]},
}


def in_order(value):
    """Sort the keys of a configuration: their order in its file is no reason to run again."""
    return json.loads(json.dumps(value, sort_keys=True))


def by_attempt(amount, an_utterance=0):
    """Resource function: so much at first, and more where a killed job is tried again.

    `an_utterance` is what each utterance of the run needs beside `amount`, where a job goes through all
    of them. Not for the minutes of a job that runs a model: it goes on from the store, and partitions
    with GPUs may refuse more minutes than they allow.
    """
    if not an_utterance:
        return lambda wildcards, attempt: attempt * amount
    return lambda wildcards, attempt: attempt * round(
        amount + an_utterance * len(all_ids(wildcards))
    )


def run_of(wildcards):
    return STUDY.runs[wildcards.dataset, wildcards.model, wildcards.task]


def shard_ids(wildcards):
    return run_of(wildcards).shards[wildcards.shard]


def all_ids(wildcards):
    return [utterance.id for utterance in run_of(wildcards).utterances]


def shards_of(step):
    """Input function: every shard of a run at a step."""

    def paths(wildcards):
        prefix = RUN.format(**wildcards)
        return [f"{prefix}/{step}/{shard}" for shard in run_of(wildcards).shards]

    return paths


def gradient_shards(wildcards):
    """Input function: the shard of each gradient method, under the method's name."""
    prefix = RUN.format(**wildcards)
    return {method: f"{prefix}/{method}/{wildcards.shard}" for method in METHODS}


def comet_checkpoint(wildcards):
    """Input function: the model that scores translations, where one is configured."""
    if "comet" not in config or run_of(wildcards).task.kind != "st":
        return {}
    return {"comet": os.path.relpath(ROOT / config["comet"])}


def run_prefixes():
    return [
        RUN.format(dataset=dataset, model=model, task=task) for dataset, model, task in STUDY.runs
    ]


def tables(name):
    return [f"{prefix}/{name}" for prefix in run_prefixes()]


def shard_directories(step):
    return [
        f"{prefix}/{step}/{shard}"
        for prefix, run in zip(run_prefixes(), STUDY.runs.values())
        for shard in run.shards
    ]


def failures_so_far():
    """Return what the steps of this configuration could not do, whatever the target was."""
    steps = ("decode", "attention", "smx", "smh", *METHODS, "aggregate", "deletion")
    names = {step: step for step in steps} | {f"sensitivity/{one}": "smx" for one in STUDY.designs}
    return [
        failure
        for prefix, run in zip(run_prefixes(), STUDY.runs.values())
        for failure in failures_where_met(Path(prefix), run.shards, names)
    ]


def model_family(wildcards):
    return STUDY.models[wildcards.model]["family"]


def what_to_fetch(entry):
    """Keep of a model's entry what its files depend on: another description fetches nothing."""
    return {key: entry[key] for key in ("family", "source", "options") if key in entry}


def local_model_files(wildcards):
    """Files of a model on this machine: changed weights are fetched, and everything after, again."""
    entry = STUDY.models[wildcards.model]
    if "path" not in entry["source"]:
        return []
    return [str(path) for path in model_files(Path(entry["source"]["path"]), entry)]


def local_model_states(wildcards):
    """Size and time of each of these files: Snakemake overlooks a replacement that is older."""
    states = [os.stat(path) for path in local_model_files(wildcards)]
    return [(state.st_size, state.st_mtime_ns) for state in states]


def get_final_output():
    return ["results/report/index.html", "results/comparisons.csv", "results/.complete"]
