# Step 5: how far attention agrees with saliency, and how far noise lets it.


rule correlate:
    input:
        aggregate=shards_of("aggregate"),
    output:
        utterances=RUN + "/correlate/utterances.csv",
        reliability=RUN + "/correlate/reliability.csv",
        summary=RUN + "/correlate/summary.csv",
        mixing=RUN + "/correlate/mixing.csv",
    log:
        "results/logs/{dataset}/{model}/{task}/correlate.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/correlate.tsv"
    params:
        version=ALGORITHM_VERSIONS["correlate"],
        ids=all_ids,
        poolings=config["aggregate"]["poolings"],
        rows=config["correlate"]["rows"],
    resources:
        mem_mb=4000,
        runtime=30,
    message:
        "Correlating: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/correlate.py"
