# Hypotheses beside their references, and their scores.


rule transcripts:
    input:
        decode=JOBS.shards_of("decode"),
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
        LOGS + "/{dataset}/{model}/{task}/transcripts.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/transcripts.tsv"
    priority: 1
    resources:
        mem_mb=JOBS.by_attempt(2000),
        runtime=JOBS.by_attempt(10),
    params:
        version=JOBS.version("transcripts"),
        ids=JOBS.ids,
        references=JOBS.references,
        text_normalisation=config["text_normalisation"],
        diacritics=JOBS.diacritics,
        tokeniser=JOBS.tokeniser,
    message:
        "Scoring the transcripts of {wildcards.dataset} by {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/transcripts.py"
