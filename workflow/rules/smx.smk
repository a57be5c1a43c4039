# Step 3: saliency on the input by perturbation (SPES), for the design of the configuration and for
# each other one.


rule smx:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/smx/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/smx/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/smx/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=JOBS.by_attempt(8000),
        runtime=240,
    params:
        version=JOBS.version("smx"),
        family=JOBS.family,
        precision=config["compute"]["precision"],
        ids=JOBS.shard_ids,
        seed=config["seed"],
        masks=JOBS.masks("smx"),
    message:
        "Saliency on the input: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/smx.py"


use rule smx as smx_design with:
    output:
        directory(RUN + "/sensitivity/{design}/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/sensitivity/{design}/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/sensitivity/{design}/{shard}.tsv"
    params:
        version=JOBS.version("smx"),
        family=JOBS.family,
        precision=config["compute"]["precision"],
        ids=JOBS.shard_ids,
        seed=config["seed"],
        masks=JOBS.masks_of_design,
    message:
        "Saliency on the input, {wildcards.design}: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
