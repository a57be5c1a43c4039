# Weights, from where config/models.yaml says, checked against its checksums.


localrules:
    fetch_model,


rule fetch_model:
    input:
        local_model_files,
    output:
        directory(MODELS + "/{model}"),
    log:
        "results/logs/fetch_model/{model}.log",
    # A failed download should show before hours of masks.
    priority: 1
    params:
        entry=lambda wildcards: in_order(what_to_fetch(STUDY.models[wildcards.model])),
        states=local_model_states,
    message:
        "Fetching the model {wildcards.model}"
    script:
        "../scripts/fetch_model.py"
