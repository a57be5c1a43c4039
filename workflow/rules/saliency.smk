# Step 3: saliency on the input (smx) and on encoder outputs (smh) by perturbation, and on the input
# by gradients (grad; any of its methods).


rule smx:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/smx/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/smx/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/smx/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime=240,
    params:
        version=ALGORITHM_VERSIONS["smx"],
        family=model_family,
        precision=config["compute"]["precision"],
        ids=shard_ids,
        seed=config["seed"],
        masks=in_order(config["smx"]),
    message:
        "Saliency on the input: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/smx.py"


rule smh:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/smh/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/smh/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/smh/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime=240,
    params:
        version=ALGORITHM_VERSIONS["smh"],
        family=model_family,
        precision=config["compute"]["precision"],
        ids=shard_ids,
        seed=config["seed"],
        masks=in_order(config["smh"]),
    message:
        "Saliency on encoder outputs: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/smh.py"


rule grad:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/{method}/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/{method}/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/{method}/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=240,
    params:
        version=lambda wildcards: ALGORITHM_VERSIONS[wildcards.method],
        family=model_family,
        ids=shard_ids,
        parameters=lambda wildcards: in_order(GRADIENT_PARAMETERS[wildcards.method]),
    message:
        "Gradients by {wildcards.method}: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/gradients.py"
