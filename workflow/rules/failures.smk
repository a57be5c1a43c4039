# Utterances that a step could not do, and an exit status that says whether there are any.


localrules:
    check_failures,


def last_shards(wildcards):
    """Every shard of the steps that no later step follows: they name the failures of all."""
    designs = [f"sensitivity/{design}" for design in STUDY.designs]
    return [path for step in ("deletion", *designs) for path in shards_of(step)(wildcards)]


rule failures:
    input:
        last_shards,
    output:
        report(
            RUN + "/failures.tsv",
            caption="../report/failures.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "failures"},
        ),
    log:
        "results/logs/{dataset}/{model}/{task}/failures.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/failures.tsv"
    resources:
        mem_mb=by_attempt(1000),
        runtime=by_attempt(10),
    params:
        ids=all_ids,
    message:
        "Listing failures: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/failures.py"


# Fails if an utterance failed, when everything else is there. Nothing depends on it.
rule check_failures:
    input:
        "results/report/index.html",
        "results/comparisons.csv",
        failures=tables("failures.tsv"),
    output:
        touch("results/.complete"),
    log:
        "results/logs/check_failures.log",
    # What failed is no less failed a minute later.
    retries: 0
    message:
        "Checking that no utterance failed"
    script:
        "../scripts/check_failures.py"
