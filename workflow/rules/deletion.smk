# Step 6: decode again while the most salient cells of each map are deleted.


rule deletion:
    input:
        unpack(JOBS.gradient_shards),
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
        smx=RUN + "/smx/{shard}",
        aggregate=RUN + "/aggregate/{shard}",
    output:
        directory(RUN + "/deletion/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/deletion/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/deletion/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=JOBS.by_attempt(8000),
        runtime=120,
    params:
        version=JOBS.version("deletion"),
        family=JOBS.family,
        precision=config["compute"]["precision"],
        ids=JOBS.shard_ids,
        seed=config["seed"],
        poolings=config["aggregate"]["poolings"],
        layers=JOBS.layers,
        deletion=in_order(config["deletion"]),
    message:
        "Deleting salient cells: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/deletion.py"
