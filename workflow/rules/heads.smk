# Which heads to use, and a verdict in words.


rule heads:
    input:
        decode=shards_of("decode"),
        aggregate=shards_of("aggregate"),
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
        "results/logs/{dataset}/{model}/{task}/heads.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/heads.tsv"
    resources:
        mem_mb=by_attempt(4000, an_utterance=20),
        runtime=by_attempt(60, an_utterance=0.3),
    params:
        version=ALGORITHM_VERSIONS["heads"],
        ids=all_ids,
        alignments=lambda wildcards: run_of(wildcards).alignments_sha256(),
        pooling=config["aggregate"]["poolings"][0],
        seed=config["seed"],
    message:
        "Choosing heads: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/heads.py"
