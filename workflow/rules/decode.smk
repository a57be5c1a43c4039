# Step 1: the model's own hypothesis of every utterance.


rule decode:
    input:
        model=MODELS + "/{model}",
    output:
        directory(RUN + "/decode/{shard}"),
    log:
        LOGS + "/{dataset}/{model}/{task}/decode/{shard}.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/decode/{shard}.tsv"
    # What is wrong with a recording should show before hours of masks.
    priority: 1
    threads: 8
    resources:
        gpu=1,
        mem_mb=JOBS.by_attempt(8000),
        runtime=60,
    params:
        version=JOBS.version("decode"),
        family=JOBS.family,
        precision=config["compute"]["precision"],
        ids=JOBS.shard_ids,
        audio=JOBS.audio,
        beam=config["decode"]["beam"],
        max_seconds=JOBS.max_seconds,
    message:
        "Decoding {wildcards.dataset} with {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/decode.py"
