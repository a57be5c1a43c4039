# Step 4: every map at encoder steps: heads, layer means, all-head mean; saliency in each pooling.


rule aggregate:
    input:
        unpack(JOBS.gradient_shards),
        decode=RUN + "/decode/{shard}",
        attention=RUN + "/attention/{shard}",
        smx=RUN + "/smx/{shard}",
        smh=RUN + "/smh/{shard}",
    output:
        directory(RUN + "/aggregate/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/aggregate/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/aggregate/{shard}.tsv"
    resources:
        mem_mb=JOBS.by_attempt(4000),
        runtime=JOBS.by_attempt(30),
    params:
        version=JOBS.version("aggregate"),
        ids=JOBS.shard_ids,
        poolings=config["aggregate"]["poolings"],
        estimators={step: JOBS.estimator(step) for step in ("smx", "smh")},
    message:
        "Aggregating: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/aggregate.py"
