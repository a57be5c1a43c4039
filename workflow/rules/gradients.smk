# Step 3: saliency on the input by gradients, with each method that the configuration lists.


rule gradients:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/{method}/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/{method}/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/{method}/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=JOBS.by_attempt(16000),
        runtime=240,
    params:
        version=JOBS.version("gradients"),
        family=JOBS.family,
        ids=JOBS.shard_ids,
        parameters=JOBS.gradient_parameters,
    message:
        "Gradients by {wildcards.method}: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/gradients.py"
