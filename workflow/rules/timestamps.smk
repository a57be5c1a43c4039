# Word timestamps read off every map, where the manifest says when words are said.


def timed_tables(name):
    """Tables of the runs that recognise utterances with alignments."""
    return [
        RUN.format(dataset=dataset, model=model, task=task) + f"/timestamps/{name}"
        for (dataset, model, task), run in STUDY.runs.items()
        if run.aligned()
    ]


rule timestamps:
    input:
        decode=shards_of("decode"),
        aggregate=shards_of("aggregate"),
    output:
        words=report(
            RUN + "/timestamps/words.csv",
            caption="../report/timestamps_words.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "timestamps, words"},
        ),
        utterances=report(
            RUN + "/timestamps/utterances.csv",
            caption="../report/timestamps_utterances.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "timestamps, utterances"},
        ),
        summary=report(
            RUN + "/timestamps/summary.csv",
            caption="../report/timestamps_summary.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "timestamps"},
        ),
    log:
        "results/logs/{dataset}/{model}/{task}/timestamps.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/timestamps.tsv"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(30),
    params:
        version=ALGORITHM_VERSIONS["timestamps"],
        ids=all_ids,
        alignments=lambda wildcards: run_of(wildcards).alignments_sha256(),
    message:
        "Timing words: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/timestamps.py"
