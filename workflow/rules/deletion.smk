# Step 6: decode again while the most salient cells of each map are deleted.


rule deletion:
    input:
        unpack(gradient_shards),
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
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime=120,
    params:
        version=ALGORITHM_VERSIONS["deletion"],
        family=model_family,
        precision=config["compute"]["precision"],
        ids=shard_ids,
        seed=config["seed"],
        poolings=config["aggregate"]["poolings"],
        layers=lambda wildcards: list(run_of(wildcards).layers),
        deletion=in_order(config["deletion"]),
    message:
        "Deleting salient cells: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/deletion.py"


rule deletion_curves:
    input:
        unpack(comet_checkpoint),
        deletion=shards_of("deletion"),
    output:
        curves=report(
            RUN + "/deletion/curves.csv",
            caption="../report/curves.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "curves"},
        ),
        auc=report(
            RUN + "/deletion/auc.csv",
            caption="../report/auc.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "auc"},
        ),
        size=report(
            RUN + "/deletion/size.csv",
            caption="../report/size.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "size"},
        ),
    log:
        "results/logs/{dataset}/{model}/{task}/deletion_curves.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/deletion_curves.tsv"
    resources:
        # A COMET model has half a billion weights and reads every translation.
        mem_mb=by_attempt(12000 if "comet" in config else 2000),
        runtime=by_attempt(240 if "comet" in config else 10),
    params:
        ids=all_ids,
        references=lambda wildcards: run_of(wildcards).references_sha256(),
        version=ALGORITHM_VERSIONS["score"],
        text_normalisation=config["text_normalisation"],
        diacritics=lambda wildcards: run_of(wildcards).diacritics,
        seed=config["seed"],
    message:
        "Scoring deletion: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/deletion_curves.py"
