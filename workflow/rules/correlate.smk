# Step 5: how far attention agrees with saliency, and how far noise lets it.


rule correlate:
    input:
        aggregate=JOBS.shards_of("aggregate"),
    output:
        utterances=report(
            RUN + "/correlate/utterances.csv",
            caption="../report/utterances.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "utterances"},
        ),
        reliability=report(
            RUN + "/correlate/reliability.csv",
            caption="../report/reliability.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "reliability"},
        ),
        summary=report(
            RUN + "/correlate/summary.csv",
            caption="../report/summary.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "summary"},
        ),
        mixing=report(
            RUN + "/correlate/mixing.csv",
            caption="../report/mixing.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "mixing"},
        ),
        best_heads=report(
            RUN + "/correlate/best_heads.csv",
            caption="../report/best_heads.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "best heads"},
        ),
        masks=report(
            RUN + "/correlate/masks.csv",
            caption="../report/masks.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "masks"},
        ),
        classes=report(
            RUN + "/correlate/classes.csv",
            caption="../report/classes.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "classes of tokens"},
        ),
        rows=RUN + "/correlate/rows.parquet",
        heads=RUN + "/correlate/heads.parquet",
    log:
        LOGS + "/{dataset}/{model}/{task}/correlate.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/correlate.tsv"
    resources:
        # What 192 heads take, the largest model of the study.
        mem_mb=JOBS.by_attempt(4000, per_utterance=20),
        runtime=JOBS.by_attempt(30, per_utterance=0.3),
    params:
        version=JOBS.version("correlate"),
        ids=JOBS.ids,
        poolings=config["aggregate"]["poolings"],
        rows=config["correlate"]["rows"],
        seed=config["seed"],
    message:
        "Correlating: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/correlate.py"
