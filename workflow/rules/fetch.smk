# Weights, from where config/models.yaml says, checked against its checksums.


localrules:
    fetch_model,


rule fetch_model:
    output:
        directory(MODELS + "/{model}"),
    log:
        "results/logs/fetch_model/{model}.log",
    params:
        entry=lambda wildcards: STUDY.models[wildcards.model],
    message:
        "Fetching the model {wildcards.model}"
    script:
        "../scripts/fetch_model.py"
