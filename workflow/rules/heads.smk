# Which heads to use, and a verdict in words.


rule heads:
    input:
        decode=JOBS.shards_of("decode"),
        aggregate=JOBS.shards_of("aggregate"),
        summary=RUN + "/correlate/summary.csv",
    output:
        ranking=report(
            RUN + "/heads/ranking.csv",
            caption="../report/heads_ranking.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "heads"},
        ),
        generation_config=RUN + "/heads/generation_config.json",
        verdict=RUN + "/heads/verdict.json",
    log:
        LOGS + "/{dataset}/{model}/{task}/heads.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/heads.tsv"
    resources:
        mem_mb=JOBS.by_attempt(4000, per_utterance=20),
        runtime=JOBS.by_attempt(60, per_utterance=0.3),
    params:
        version=JOBS.version("heads"),
        ids=JOBS.ids,
        alignments=JOBS.alignments,
        diacritics=JOBS.diacritics,
        pooling=config["aggregate"]["poolings"][0],
        seed=config["seed"],
    message:
        "Choosing heads: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/heads.py"
