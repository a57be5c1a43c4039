# Models, tasks and layers compared over all runs.


rule comparisons:
    input:
        utterances=JOBS.tables("correlate/utterances.csv"),
    output:
        report(
            layout.COMPARISONS,
            caption="../report/comparisons.rst",
            category="Report",
            labels={"result": "models, tasks and layers compared"},
        ),
    log:
        LOGS + "/comparisons.log",
    benchmark:
        BENCHMARKS + "/comparisons.tsv"
    resources:
        mem_mb=JOBS.by_attempt(4000),
        runtime=JOBS.by_attempt(30),
    params:
        version=JOBS.version("comparisons"),
        # The rows follow their order.
        runs=JOBS.run_names(),
        pooling=config["aggregate"]["poolings"][0],
        seed=config["seed"],
    message:
        "Comparing models, tasks and layers"
    script:
        "../scripts/comparisons.py"
