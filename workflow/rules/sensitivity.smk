# How the headline depends on the design of the perturbation; only where the config lists designs.


rule sensitivity:
    input:
        unpack(JOBS.design_shards),
        aggregate=JOBS.shards_of("aggregate"),
        smx=JOBS.shards_of("smx"),
    output:
        report(
            RUN + "/sensitivity/sensitivity.csv",
            caption="../report/sensitivity.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "sensitivity"},
        ),
    log:
        LOGS + "/{dataset}/{model}/{task}/sensitivity.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/sensitivity.tsv"
    resources:
        mem_mb=JOBS.by_attempt(4000),
        runtime=JOBS.by_attempt(30),
    params:
        version=JOBS.version("sensitivity"),
        ids=JOBS.ids,
        designs=list(STUDY.designs),
        rows=config["correlate"]["rows"],
        estimator=JOBS.estimator("smx"),
    message:
        "Comparing designs of the perturbation: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/sensitivity.py"
