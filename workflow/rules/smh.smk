# Step 3: saliency on the encoder's output by the same perturbation.


rule smh:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/smh/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/smh/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/smh/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=JOBS.by_attempt(8000),
        runtime=240,
    params:
        version=JOBS.version("smh"),
        family=JOBS.family,
        precision=config["compute"]["precision"],
        ids=JOBS.shard_ids,
        seed=config["seed"],
        masks=JOBS.masks("smh"),
    message:
        "Saliency on encoder outputs: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/smh.py"
