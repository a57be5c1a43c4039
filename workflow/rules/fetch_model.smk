# Weights, from where config/models.yaml says, checked against its checksums.


localrules:
    fetch_model,


rule fetch_model:
    input:
        JOBS.model_files,
    output:
        directory(MODELS + "/{model}"),
    log:
        LOGS + "/fetch_model/{model}.log",
    # A failed download should show before hours of masks.
    priority: 1
    params:
        entry=JOBS.model_entry,
        states=JOBS.model_states,
    message:
        "Fetching the model {wildcards.model}"
    script:
        "../scripts/fetch_model.py"
