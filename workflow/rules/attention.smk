# Step 2: cross-attention of a teacher-forced pass, for every layer and head.


rule attention:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/attention/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/attention/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/attention/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime=30,
    params:
        version=ALGORITHM_VERSIONS["attention"],
        family=model_family,
        precision=config["compute"]["precision"],
        ids=shard_ids,
    message:
        "Extracting cross-attention: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/attention.py"
