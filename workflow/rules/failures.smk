# The utterances that a step failed on.


rule failures:
    input:
        JOBS.last_shards,
    output:
        report(
            RUN + "/failures.tsv",
            caption="../report/failures.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "failures"},
        ),
    log:
        LOGS + "/{dataset}/{model}/{task}/failures.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/failures.tsv"
    resources:
        mem_mb=JOBS.by_attempt(1000),
        runtime=JOBS.by_attempt(10),
    params:
        ids=JOBS.ids,
    message:
        "Listing failures: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/failures.py"
