# Step 2: cross-attention of a teacher-forced pass, for every layer and head.


rule attention:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/attention/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/attention/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/attention/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=JOBS.by_attempt(8000),
        runtime=30,
    params:
        version=JOBS.version("attention"),
        family=JOBS.family,
        precision=config["compute"]["precision"],
        ids=JOBS.shard_ids,
    message:
        "Extracting cross-attention: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/attention.py"
