# Step 6: decode again while the most salient cells of each map are deleted.


rule deletion:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
        smx=RUN + "/smx/{shard}",
        aggregate=RUN + "/aggregate/{shard}",
    output:
        directory(RUN + "/deletion/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/deletion/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/deletion/{shard}.tsv"
    params:
        version=ALGORITHM_VERSIONS["deletion"],
        family=model_family,
        precision=config["compute"]["precision"],
        ids=shard_ids,
        seed=config["seed"],
        poolings=config["aggregate"]["poolings"],
        deletion=config["deletion"],
    threads: 8
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=120,
    message:
        "Deleting salient cells: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/deletion.py"


rule deletion_curves:
    input:
        deletion=shards_of("deletion"),
    output:
        curves=RUN + "/deletion/curves.csv",
        auc=RUN + "/deletion/auc.csv",
    log:
        "results/logs/{dataset}/{model}/{task}/deletion_curves.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/deletion_curves.tsv"
    params:
        ids=all_ids,
        references=lambda wildcards: run_of(wildcards).references_sha256(),
        version=ALGORITHM_VERSIONS["score"],
        text_normalisation=config["text_normalisation"],
    resources:
        mem_mb=2000,
        runtime=10,
    message:
        "Scoring deletion: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/deletion_curves.py"
