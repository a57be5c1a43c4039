# Scores of the hypotheses that were left after each deletion.


rule deletion_curves:
    input:
        unpack(JOBS.comet_checkpoint),
        deletion=JOBS.shards_of("deletion"),
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
        LOGS + "/{dataset}/{model}/{task}/deletion_curves.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/deletion_curves.tsv"
    resources:
        # A COMET model has half a billion weights and reads every translation.
        mem_mb=JOBS.by_attempt(12000 if "comet" in config else 2000),
        runtime=JOBS.by_attempt(240 if "comet" in config else 10),
    params:
        ids=JOBS.ids,
        references=JOBS.references,
        version=JOBS.version("deletion_curves"),
        text_normalisation=config["text_normalisation"],
        diacritics=JOBS.diacritics,
        tokeniser=JOBS.tokeniser,
        seed=config["seed"],
    message:
        "Scoring deletion: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/deletion_curves.py"
