# Step 4: every map at encoder steps: heads, layer means, all-head mean; saliency in each pooling.


rule aggregate:
    input:
        unpack(gradient_shards),
        decode=RUN + "/decode/{shard}",
        attention=RUN + "/attention/{shard}",
        smx=RUN + "/smx/{shard}",
        smh=RUN + "/smh/{shard}",
    output:
        directory(RUN + "/aggregate/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/aggregate/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/aggregate/{shard}.tsv"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(30),
    params:
        version=ALGORITHM_VERSIONS["aggregate"],
        ids=shard_ids,
        poolings=config["aggregate"]["poolings"],
        estimators={step: config[step].get("estimator", "mean") for step in ("smx", "smh")},
    message:
        "Aggregating: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/aggregate.py"
