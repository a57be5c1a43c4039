# Step 1: the model's own hypothesis of every utterance, and how good it is.


rule decode:
    input:
        model=MODELS + "/{model}",
    output:
        directory(RUN + "/decode/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/decode/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/decode/{shard}.tsv"
    # What is wrong with a recording should show before hours of masks.
    priority: 1
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime=60,
    params:
        version=ALGORITHM_VERSIONS["decode"],
        family=model_family,
        precision=config["compute"]["precision"],
        ids=shard_ids,
        audio=lambda wildcards: run_of(wildcards).audio_sha256(wildcards.shard),
        beam=config["decode"]["beam"],
        max_seconds=lambda wildcards: run_of(wildcards).max_seconds,
    message:
        "Decoding {wildcards.dataset} with {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/decode.py"


rule transcripts:
    input:
        decode=shards_of("decode"),
    output:
        transcripts=report(
            RUN + "/decode/transcripts.csv",
            caption="../report/transcripts.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "transcripts"},
        ),
        scores=report(
            RUN + "/decode/scores.csv",
            caption="../report/scores.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "scores"},
        ),
    log:
        "results/logs/{dataset}/{model}/{task}/transcripts.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/transcripts.tsv"
    priority: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(10),
    params:
        version=ALGORITHM_VERSIONS["score"],
        ids=all_ids,
        references=lambda wildcards: run_of(wildcards).references_sha256(),
        text_normalisation=config["text_normalisation"],
        diacritics=lambda wildcards: run_of(wildcards).diacritics,
    message:
        "Scoring the transcripts of {wildcards.dataset} by {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/transcripts.py"
